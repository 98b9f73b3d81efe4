"""Rules that OpenAPI cannot describe: relations between parameters, and which text is visible. A valid value is changed so
that it obeys them. An invalid one is kept, so that it is the only cause of an error."""

import base64
import hashlib
import itertools
import re

import schemathesis


numbers = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    key = (case.headers or {}).get("idempotency-key")
    if key and re.fullmatch("[!-~]{1,255}", key):
        # A key belongs to one request.
        case.headers["idempotency-key"] = f"{key[:200]}-{next(numbers)}"
    # The value null of an optional header means that it is absent.
    for name in "if-match", "if-none-match":
        if case.headers and case.headers.get(name) == "null":
            del case.headers[name]
    condition = (case.headers or {}).get("if-match")
    # Any tag but one of a response is that of another state.
    tags = r'(\*|(W/)?"[!#-+\--~]*"(, (W/)?"[!#-+\--~]*")*)'
    if condition and re.fullmatch(tags, condition) and not re.fullmatch('"[0-9a-f]{32}"', condition):
        case.headers["if-match"] = "*"
    if isinstance(case.body, dict):
        for name, longest in ("username", 80), ("email", 120):
            text = case.body.get(name)
            if isinstance(text, str) and 1 <= len(text) <= longest:
                case.body[name] = valid(name, text)
    query = case.query
    if not query:
        return
    sort, q, after = query.get("sort", "id"), query.get("q"), query.get("after")
    if re.fullmatch("-?(id|username|email|since)", str(sort)):
        # A search is ordered by the column that it matches.
        if isinstance(q, str) and q:
            column = "email" if "@" in q else "username"
            sort = ("-" if sort.startswith("-") else "") + column
            if "sort" in query:
                query["sort"] = sort
        # A cursor belongs to the ordering that it continues.
        if isinstance(after, str) and re.fullmatch("[A-Za-z0-9_-]+", after):
            query["after"] = cursor(sort.removeprefix("-"), after)


def valid(name, text):
    """A name or an address that is derived from this text, and that no row has yet. Some are as long as the text."""
    unique = f"{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}{next(numbers)}"
    return unique.ljust(len(text), "x") if name == "username" else unique + "@example.com"


def cursor(column, after):
    """The cursor itself if it is one of this column, else one that is derived from it."""
    letter = column[0].encode()
    given = base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)) if len(after) % 4 != 1 else b""
    if column == "id":
        key = given if len(given) == 9 and given[:1] == letter else letter + sum(after.encode()).to_bytes(8, "big")
    elif column == "since":
        # It is not unique, so the id is in the cursor too.
        key = letter + 2 * sum(after.encode()).to_bytes(8, "big")
    else:
        key = given if given[:1] == letter else letter + after[:100].encode()
    return base64.urlsafe_b64encode(key).decode().rstrip("=")
