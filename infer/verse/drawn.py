"""Titles for poems that nobody gave one: a hundred of them are about a hundred different things. No torch here."""

import random

WHEN = ("早春 春日 春夜 暮春 初夏 夏日 新秋 秋日 秋夜 深秋 初冬 冬夜 岁暮 雨后 雪中 月夜 晓 晚 清明 重阳").split()
WHERE = (
    "山居 山行 江行 江楼 江村 湖上 溪上 舟中 夜泊 渡江 登楼 登高 登山 寺中 "
    "山寺 道中 驿楼 旅舍 关山 塞上 城楼 田家 园中 池上 村居 客舍 郊行 海上 "
    "草堂 边城"
).split()
WHAT = (
    "寄友 送别 送人 怀友 怀古 怀乡 思归 忆旧 有感 书怀 遣兴 独坐 独酌 对月 "
    "对酒 听雨 听琴 闻笛 闻雁 即事 望雪 观花 寻僧 访隐者不遇 赠僧 闺怨 宫怨 别故人 "
    "逢故人 咏史"
).split()
THINGS = (
    "梅花 落花 杨柳 新竹 松 菊 兰 荷花 桃花 牡丹 海棠 红叶 芳草 芭蕉 "
    "孤雁 归燕 鹤 莺 蝉 萤 马 白鹭 流水 瀑布 孤云 明月 春雨 秋风 "
    "白雪 晚钟 琴 剑 酒 茶 渔父 樵夫 渔舟 夕阳"
).split()


def draw_title(seed: int) -> str:
    """A title such as 秋夜江楼闻笛 or 咏孤雁, of some 19,000."""
    chance = random.Random(seed)
    kind = chance.random()
    if kind < 0.25:
        return chance.choice(["咏", "", "咏" + chance.choice(["春", "秋", "寒", "野"])]) + chance.choice(THINGS)
    parts = [chance.choice(WHEN), chance.choice(WHERE), chance.choice(WHAT)]
    if kind < 0.75:
        del parts[chance.randrange(3)]
    return "".join(parts)
