"""Text that can be shown, whatever is in the names of others."""

# What XML cannot hold, a terminal would obey, or would make a text read in another order than it has: control
# characters, separators of lines, marks that turn the direction, surrogates (bytes that are not UTF-8).
_UNPRINTABLE = {
    code: "\ufffd"
    for first, last in (
        (0x00, 0x08),
        (0x0B, 0x1F),
        (0x7F, 0x9F),
        (0x2028, 0x202E),
        (0x2066, 0x2069),
        (0xD800, 0xDFFF),
        (0xFFFE, 0xFFFF),
    )
    for code in range(first, last + 1)
}


def clean(text: object) -> str:
    """The text without characters that HTML and XML cannot hold, or that change how the rest is shown."""
    return str(text).translate(_UNPRINTABLE)


def json_for_terminal(json: str) -> str:
    """JSON text whose strings have the same characters as escapes."""
    return "".join(f"\\u{ord(letter):04x}" if ord(letter) in _UNPRINTABLE else letter for letter in json)


def one_line(text: object) -> str:
    """The text for a terminal: clean, and without line ends."""
    return " ".join(clean(text).split())
