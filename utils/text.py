"""Numbers as people read them."""


def short(value: float, digits: int = 3) -> str:
    """`value` with so many decimals; one of a million and more by its power of ten: 1.07e+301."""
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"


def times_as_fast(ratio: float) -> str:
    """Such as "3.1 times as fast as", "20 times slower than"; `ratio` is that of the two speeds."""
    if ratio >= 1:
        return f"{ratio:.1f} times as fast as"
    return f"{1 / ratio:.{0 if ratio < 0.1 else 1}f} times slower than"
