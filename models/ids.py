"""Ids of kinds and channels in our form, however facts and settings write them."""

from functools import lru_cache


@lru_cache(maxsize=4096)
def snake(text: str) -> str:
    """An id in our form: lower case, other than letters and digits become one underscore.

    >>> snake(" E-mail  Opened")
    'e_mail_opened'
    """
    words = "".join(char if char.isalnum() else " " for char in text.lower()).split()
    return "_".join(words)
