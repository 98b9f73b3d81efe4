"""The configuration of one deploy: settings that may be a part of a release."""

import re

from .refusal import Refusal

# A group of environments changes settings together that are independent of each other.
GROUPS = {"production", "prod", "staging", "development", "dev", "qa", "sandbox"}
GROUP_NAME = re.compile(r"(^|_)(ENV|ENVIRONMENT|STAGE|PROFILES?(_ACTIVE)?)$")
SECRET_NAME = re.compile(r"PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|HEADERS|KEYS?(_|$)|(^|_)(PASS|PWD|AUTH)(_|$)")
SECRET_VALUE = re.compile(
    r"""-----BEGIN
    | ://[^\s@]*:[^\s@]+@                                             # user:password@host
    | (passw(or)?d|passphrase|pwd|secret|token|credential|api_?key)=  # ?password=, or a driver's own notation
    | \b(basic|bearer)(\s|%20)""",
    re.IGNORECASE | re.VERBOSE,
)
# The hashes of tokens, which are no secrets.
HASHES = re.compile(r"([\w.-]+:[0-9A-Fa-f]{64}[,\s]*)+", re.ASCII)


def read(file, assignments):
    """The settings of a file and of the command line, or everything that is wrong with them."""
    lines = [(f"--set number {number}", text) for number, text in enumerate(assignments, 1)]
    problems = []
    if file:
        if GROUPS & set(re.split(r"[\W_]", file.name.lower())):
            problems.append(f"{file} is named after a group of environments: name it after its deploy")
        text = file.read_text(encoding="utf-8").split("\n")
        lines += [(f"{file}:{number}", line) for number, line in enumerate(text, 1) if line and line[0] != "#"]
    settings = {}
    for where, text in lines:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
            problems.append(f"{where}: not NAME=value, with its name in capitals")
        elif name in settings:
            problems.append(f"{where}: {name} is set already")
        elif objection := objection_to(name, value):
            problems.append(f"{where}: {name} {objection}")
        else:
            settings[name] = value
    if problems:
        raise Refusal("this configuration is not released:\n  " + "\n  ".join(problems))
    return dict(sorted(settings.items()))


def objection_to(name, value):
    """Why this may not be part of a release, if it may not."""
    if name == "RELEASE_ID":
        return "is what the release itself sets"
    if not value.isprintable():
        return "holds a control character"
    if GROUP_NAME.search(name) or value.lower() in GROUPS:
        return "names a group of environments: set what is different in this deploy, each by its own variable"
    if name == "API_TOKENS_REQUIRED" or name == "API_TOKENS" and HASHES.fullmatch(value):
        return None
    # The path of a secret that is mounted is none.
    if SECRET_NAME.search(name) and not (name.endswith("_FILE") and value.startswith("/")):
        return "is a secret by its name: give it when the release runs"
    if SECRET_VALUE.search(value) or any(map(is_random, re.findall("[A-Za-z0-9+/_=-]{20,}", value))):
        return "looks like a secret: give it when the release runs"
    return None


def is_random(text):
    """Whether this may be a key: unlike words, it changes often between letters and digits, or to a capital. Shannon's
    entropy does not tell the two apart in a text as short as a key is."""
    return len(re.findall("(?=[a-z][A-Z]|[A-Za-z][0-9]|[0-9][A-Za-z])", text)) * 5 >= len(text)
