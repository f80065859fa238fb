"""The page's texts, Chinese and English side by side, and how one of the two is shown.

Labels, buttons and choices are translated by Gradio (`text`). HTML holds both texts (`both`), and the style sheet shows
the one of the page's language; so do mistakes and remarks, which the project makes in English (`translate`).
"""

import html
import re

import gradio as gr

from shihua import STYLES

WORDS = {
    # tabs
    "compose": ("写诗", "Compose"),
    "paint": ("绘画", "Paint"),
    "postcard": ("诗画", "Postcard"),
    "classify": ("猫狗", "Dog or cat"),
    "training": ("训练", "Training"),
    # fields, by the names of what they ask for
    "form": ("体裁", "Form"),
    "form_info": ("4 × 7：四句，每句七字", "4 × 7: four verses of seven characters"),
    "tune": ("词牌", "Tune"),
    "title": ("题目", "Title"),
    "prompt": ("上联", "First line"),
    "keywords": ("关键词", "Keywords"),
    "acrostic": ("藏头", "Acrostic"),
    "acrostic_info": ("各句的第一个字", "The first characters of the verses"),
    "temperature": ("大胆", "Temperature"),
    "seed": ("种子", "Seed"),
    "seed_info": ("同一种子写出同一首；-1：每次不同", "The same seed writes the same poem; -1: always a new one"),
    "style": ("风格", "Style"),
    "strength": ("浓淡", "Strength"),
    "strength_info": ("0：照片本身", "0: the photo itself"),
    "stroke": ("笔触", "Stroke"),
    "other": ("掺入另一种风格", "Mixed with"),
    "share": ("掺入多少（%）", "How much of it, %"),
    "keep_color": ("保留照片的颜色", "Keep the photo's colours"),
    "poem": ("诗", "Poem"),
    "poem_info": ("空着：按题目或照片写一首", "Empty: one to the title, or about the photo"),
    "seal": ("印", "Seal"),
    "photo": ("照片", "Photo"),
    "lock": ("留住的句子", "Verses to keep"),
    # choices
    "auto": ("自动", "auto"),
    "free": ("自由体", "free"),
    "词": ("词", "词 to a tune"),
    "对联": ("对联", "对联 couplet"),
    "fine": ("细", "fine"),
    "medium": ("中", "medium"),
    "large": ("粗", "large"),
    "none": ("不掺", "none"),
    # buttons
    "more": ("更多", "More"),
    "again": ("重写其余", "Write the others anew"),
    "copy": ("复制", "Copy"),
    "save": ("下载", "Download"),
    "link": ("复制链接", "Copy a link"),
    "speak": ("朗读", "Read aloud"),
    "onto": ("题到画上", "Onto a postcard"),
    "tones": ("平仄", "Tones"),
    "pinyin": ("拼音", "Pinyin"),
    "traditional": ("繁体字", "Traditional characters"),
    "history": ("写过的诗", "Poems written before"),
    "examples": ("例子", "Examples"),
    "sample": ("用一张样片", "Use a sample photo"),
    "start_paint": ("开始画", "Paint it"),
    "start_postcard": ("题画", "Make it"),
    "start_classify": ("辨认", "Tell"),
    "to_postcard": ("做成诗画", "Make it a postcard"),
    "stop": ("停", "Stop"),
    # what is shown
    "subtitle": ("写诗 · 作画 · 题画", "Shihua: poems, paintings, postcards"),
    "poems_here": ("诗成于此", "The poems will stand here"),
    "picture_here": ("画成于此", "The picture will stand here"),
    "own_style": ("自己的风格，三分钟学会，在终端输入", "Your own style, in three minutes: type in a terminal"),
    "answer_here": ("答案在此", "The answer will stand here"),
    "key": ("○ 平　● 仄　◐ 可平可仄　<b>△</b> 韵", "○ level　● oblique　◐ either　<b>△</b> rhyme"),
    "full_size": ("原大", "Full size"),
    "before_after": ("左：照片　右：画", "Left: the photo, right: the painting"),
    "based_on": ("依据（Grad-CAM）", "What it is based on (Grad-CAM)"),
    "seen": ("看见", "It shows"),
    "cat": ("猫", "cat"),
    "dog": ("狗", "dog"),
    "neither": ("都不是", "neither"),
    "stopped": ("已停止", "Stopped"),
    # training
    "run": ("训练", "Run"),
    "state": ("状态", "State"),
    "epoch": ("轮", "Epoch"),
    "best": ("最佳", "Best"),
    "task": ("任务", "Task"),
    "running": ("训练中", "running"),
    "finished": ("已完成", "finished"),
    "interrupted": ("已中断", "interrupted"),
    "broken": ("日志损坏", "broken log"),
    "resume": ("继续训练", "Go on"),
    "use": ("使用模型", "Use it"),
    "no_runs": ("还没有训练", "No runs yet"),
    "type": ("在终端输入", "Type in a terminal"),
    "broken_log": (
        "这次训练的日志无法读取，其他训练不受影响。",
        "The log cannot be read; other runs are shown.",
    ),
    "poems": ("诗", "poems"),
    "paintings": ("画", "paintings"),
    "best batch": ("损失最小的一批", "best batch"),
    "worst batch": ("损失最大的一批", "worst batch"),
    "worst and best": ("错得最多与最少的", "worst and best"),
    "left out": ("略去的", "left out"),
    "no_samples": ("第一轮结束后，这里会出现样例。", "Samples appear after the first epoch."),
}
# Mistakes and remarks by their English text: (pattern, Chinese, English; "": as it is), \1 what the pattern has caught.
SENTENCES = [
    (r"(.+) has (\d+) verses, not (\d+).*", r"\1只有\2句，藏不下\3个字；体裁选“自动”，或减少几个字",
     r"\1 has \2 verses, not \3: choose auto, or fewer characters"),
    (r"an acrostic has (\d+) characters at most.*", r"最多藏\1个字", ""),
    (r"must be a text of at most (\d+) characters", r"最多\1个字", r"at most \1 characters"),
    (r"must be at most ([-\d.]+).*", r"最大是\1", r"must be at most \1"),
    (r"must be at least ([-\d.]+).*", r"最小是\1", r"must be at least \1"),
    (r"expected a whole number.*", r"请填整数", r"expected a whole number"),
    (r"choose a tune", r"请选一个词牌", ""),
    (r"every verse is kept.*", r"所有的句子都留住了，没有可重写的：请放开几句", ""),
    (r"verses can be kept in .*", r"只有绝句、律诗和词能留句", ""),
    (r"the poems are not here any more.*", r"这些诗已经不在了，请重新写", ""),
    (r"the given verses do not fit (.+?): .*", r"留住的句子不合\1的句数或字数", ""),
    (r"a line of a pair has 1 to 30.*", r"上联每句须有一至三十个字", ""),
    (r"has (\d+) characters, the form only (\d+).*", r"有\1个字，超过了这个体裁的\2个字",
     r"has \1 characters, the form only \2: shorten it"),
    (r"(.*) want different characters at the same place", r"藏头和留住的句子在同一处用了不同的字", ""),
    (r"对联: give the first line.*", r"对联不能藏头", "a couplet takes no acrostic"),
    (r"this page was started without a (.*)", r"这里没有所需的模型", ""),
    (r"choose a photo first", r"请先选一张照片", ""),
    (r"(.+) is empty \(0 bytes\).*", r"\1 是空文件（0 字节），不是图片", ""),
    (r"(.+) is not a picture that can be read .*", r"\1 不是能读的图片，或者已损坏",
     r"\1 is not a picture that can be read, or is broken"),
    (r"(.+) is broken: choose it again", r"\1 已损坏，请重新选择", ""),
    (r"(.+) is broken or cut short.*", r"\1 已损坏或不完整", r"\1 is broken or cut short"),
    (r"(.+) has (\d+) x (\d+) pixels, .* max_megapixels=([\d.]+).*", r"\1 有 \2 × \3 像素，最多 \4 百万像素，请先缩小",
     r"\1 has \2 × \3 pixels, more than \4 megapixels: make it smaller"),
    (r"(.+) needs more memory than there is.*", r"\1 太大，内存不够，请先缩小", ""),
    (r"out of memory at (.*) pixels.*", r"内存不够，请先缩小照片", "out of memory: make the photo smaller"),
    (r"(.+) is a camera's raw file.*", r"\1 是相机的原始文件，读不了，请先导出为 JPEG", ""),
    (r"(.+) is a video, not a picture", r"\1 是视频，不是图片", ""),
    (r"(.+) is a web page, not a picture.*", r"\1 是网页，不是图片，请下载图片本身", ""),
    (r"(.+) is .*, which cannot be read: save it as JPEG or PNG", r"\1 读不了，请先存为 JPEG 或 PNG", ""),
    (r"the picture is not here any more.*", r"照片已经不在了，请重新选择", ""),
    (r"too many pictures at once.*", r"图片太多，请过一会儿再试", ""),
    (r"a seal has one to four characters.*", r"印章一至四字，不含空格", ""),
    (r"(\d+) characters, a postcard has room for (\d+)", r"有\1个字，诗画只放得下\2个", ""),
    (r"no poem found.*", r"没有找到诗：请写出诗句，如“白日依山尽，黄河入海流。”", ""),
    (r"(\d+) poems with blank lines between.*", r"空行隔开了\1首诗，请只留一首", ""),
    (r"no font found has (.*): name.*", r"没有字体能写 \1，请换别的字", r"no font found has \1: write something else"),
    (r"(.+) is an animation: only its first frame is used", r"\1 是动图，只用第一帧", ""),
    (r"(.+) has several pages: only the first is used", r"\1 有好几页，只用第一页", ""),
    (r"(.+) holds several pictures: only the main one.*", r"\1 里有好几张图，只用主要的一张", ""),
    # remarks on poems
    (r"the title is read as (.*)", r"题目读作：\1", ""),
    (r"nothing of the title is read", r"题目没有一个字读得懂", ""),
    (r"(.+) is not known and was left out", r"“\1”读不懂，略去了", ""),
    (r"(?:\w+: )?(.+) is (read|written) as (.*)", r"“\1”写作：\3", r"\1 is \2 as \3"),
    (r"(.+): the poet does not know (.*) and reads over it", r"诗人不认识“\2”，跳过了", ""),
    (r"(.+): two poems, (.*) and (.*)", r"“\1”分作两首：\2、\3", ""),
    (r"(.+) has (\d+) characters, (.+) (\d+) verses: the others are free", r"“\1”\2个字，\3有\4句，其余各句不限", ""),
    (r"(.) \(verse (\d+), character (\d+)\) .*", r"第\2句第\3字“\1”不合平仄或不押韵，照样保留，其余合律", ""),
    (r"the poet has no rhyme table.*", r"这位诗人没有韵表：只守体裁，不守平仄和押韵", ""),
]  # fmt: skip
PREFIX = "page_"  # Gradio takes whatever text equals a key for it


def _table(language: int) -> dict[str, str]:
    texts = {name: pair[language] for name, pair in WORDS.items()}
    texts |= {f"style_{name}": english if language else chinese for name, (english, chinese, *_) in STYLES.items()}
    return {PREFIX + name: text for name, text in texts.items()}


I18N = gr.I18n(zh=_table(0), en=_table(1))


def text(name: str) -> str:
    """One of WORDS for a label, a button or a choice: Gradio puts the text of the page's language in its place."""
    return str(I18N(PREFIX + name))


def both(name: str) -> str:
    """One of WORDS as HTML in both languages, of which the page shows one."""
    return in_both(*WORDS[name])


def in_both(chinese: str, english: str) -> str:
    """HTML of which the page shows one language."""
    return f'<span class="zh" lang="zh-CN">{chinese}</span><span class="en" lang="en">{english}</span>'


def empty(name: str, more: str = "") -> str:
    """HTML of a place where nothing is shown yet: one of WORDS, and `more` HTML."""
    return f'<div class="empty"><p>{both(name)}</p>{more}</div>'


def style_title(name: str) -> str:
    """A style's title, for a choice; of a style that the project does not ship, its name."""
    return text(f"style_{name}") if name in STYLES else name.replace("_", " ")


def translate(sentence: str) -> str:
    """A mistake or a remark as HTML in both languages."""
    for pattern, chinese, english in SENTENCES:
        if found := re.fullmatch(pattern, sentence, re.DOTALL):
            pair = found.expand(chinese), found.expand(english) if english else sentence
            return in_both(*map(html.escape, pair))
    return in_both(f"不行：{html.escape(sentence)}", html.escape(sentence))
