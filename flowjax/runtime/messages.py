"""Errors of libraries, as part of a line of ours."""


def first_line(error: BaseException, longest: int | None = None) -> str:
    """The first line of an error's text, or the name of its type where it has none; its first `longest` letters."""
    text = str(error).strip()
    return text.splitlines()[0][:longest] if text else type(error).__name__
