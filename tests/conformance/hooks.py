"""Relations between parameters, which OpenAPI cannot describe. A valid parameter is changed to match the others. An
invalid one is kept, so that it is the only cause of a 400."""

import base64
import re

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
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
