"""What the styles are called in Chinese. No torch here: the page shows the names before a network is loaded."""

CHINESE = {  # names of styles, the first one to show
    "composition_vii": ("构成第七号", "构成"),
    "dong_qichang": ("董其昌册页", "董其昌"),
    "fuchun_shanju": ("富春山居",),
    "great_wave": ("神奈川浪", "神奈川冲浪里", "浪", "巨浪"),
    "qianli_jiangshan": ("千里江山",),
    "san_giorgio": ("圣乔治岛", "威尼斯"),
    "sesshu_autumn": ("雪舟秋景", "秋景"),
    "shipwreck": ("海难", "沉船"),
    "starry_night": ("星月夜", "星夜"),
    "the_scream": ("呐喊",),
}


def chinese_name(style: str) -> str:
    """What a style is called in Chinese, empty if it has no such name."""
    return CHINESE.get(style, ("",))[0]


def both_names(style: str) -> str:
    """Such as "starry_night 星月夜"."""
    return f"{style} {chinese_name(style)}".strip()
