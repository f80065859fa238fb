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
