"""Numbers in sentences."""


def counted(number: float, one: str, many: str | None = None) -> str:
    """`number` of something, in the words for one or for several.

    Args:
        one: the word for a single one.
        many: the word for several; `one` with an s if None.

    Example:
        >>> counted(1, "epoch"), counted(2000, "image"), counted(3, "class", "classes")
        ('1 epoch', '2000 images', '3 classes')
    """
    figure = str(number) if isinstance(number, int) else f"{number:g}"
    return f"{figure} {one if number == 1 else many or one + 's'}"
