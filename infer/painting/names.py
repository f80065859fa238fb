"""What the styles are called. No torch here: the page shows the names before a network is loaded."""

STYLES = {  # the English title, and the names in Chinese, the first one to show
    "composition_vii": ("Composition VII", "构成第七号", "构成"),
    "dong_qichang": ("Landscapes of Dong Qichang", "董其昌册页", "董其昌"),
    "fuchun_shanju": ("Dwelling in the Fuchun Mountains", "富春山居"),
    "great_wave": ("The Great Wave", "神奈川浪", "神奈川冲浪里", "浪", "巨浪"),
    "qianli_jiangshan": ("A Thousand Li of Rivers and Mountains", "千里江山"),
    "san_giorgio": ("San Giorgio Maggiore", "圣乔治岛", "威尼斯"),
    "sesshu_autumn": ("Sesshū's Autumn", "雪舟秋景", "秋景"),
    "shipwreck": ("The Shipwreck", "海难", "沉船"),
    "starry_night": ("The Starry Night", "星月夜", "星夜"),
    "the_scream": ("The Scream", "呐喊"),
}
CHINESE = {style: chinese for style, (_, *chinese) in STYLES.items()}


def chinese_name(style: str) -> str:
    """What a style is called in Chinese, empty if it has no such name."""
    return CHINESE.get(style, [""])[0]


def both_names(style: str) -> str:
    """Such as "starry_night 星月夜"."""
    return f"{style} {chinese_name(style)}".strip()
