"""Luminance, lightness and contrast, as WCAG 2.2 and the CIE define them."""

import numpy as np

_VALUES = np.arange(256, dtype=np.float32) / 255
_LINEAR = np.where(_VALUES <= 0.04045, _VALUES / 12.92, ((_VALUES + 0.055) / 1.055) ** 2.4).astype(np.float32)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance (WCAG 2.2) of sRGB (…, 3) uint8 -> (…) float32, 0..1."""
    return _LINEAR[rgb] @ np.array([0.2126, 0.7152, 0.0722], np.float32)


def lightness(luminance: np.ndarray) -> np.ndarray:
    """CIE L*, 0..100, of relative luminance."""
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def contrast(first: float, second: float) -> float:
    """WCAG's ratio of two relative luminances, 1..21."""
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)
