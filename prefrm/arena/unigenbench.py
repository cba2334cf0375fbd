"""UniGenBench++ (arXiv 2510.18701): its four files of 600 prompts, in English and Chinese, short and long.

A row has an index, a prompt and a JSON object of theme, subtheme, subject, sentence structure and aligned
lists of test points and their descriptions. Themes and test points have English names here in both languages.
The files have defects, which are repaired where there is one way to do it, and counted:

- a row of the long English file lacks a comma between two test points;
- 28 spellings of the 20 subthemes, such as "Art-Graphic Art", and 4 of the 2 sentence structures;
- a description is empty, and a prompt of a long file names a test point twice.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from prefrm.arena.values import ArenaPrompt, Check
from prefrm.errors import DataError

__all__ = ["POINTS", "SUBTHEMES", "language", "parse_row", "set_name"]

SHORT_CHECKS = 5
"""The most test points of a prompt of a short file; one of a long file has up to ten."""
MISSING_COMMA = re.compile(r'"(\s+)"')
"""Between two texts of a list of JSON."""

THEMES: Mapping[str, tuple[str, ...]] = {
    "Art": ("艺术",),
    "Film & Story": ("影视故事",),
    "Illustration": ("配图", "Mapping"),
    "Design": ("设计",),
    "Creative Divergence": ("创意发散", "Creativity divergence"),
}
"""Theme -> its Chinese name, and other spellings."""
SUBTHEMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Art": {
        "Graphic": ("Graphic Art", "平面艺术"),
        "Photography": ("Photography Art", "摄影艺术"),
        "Sculptural": ("Sculptural Art", "立体艺术", "Three-dimensional Art"),
        "Other": ("Other", "其他"),
    },
    "Film & Story": {
        "Animation": ("Animation", "动画"),
        "Realism": ("Realism", "写实"),
        "Sci-Fi": ("Sci-Fi", "科幻"),
    },
    "Illustration": {
        "Content": ("Content Illustration", "内容配图", "Content Mapping"),
        "Copywriting": ("Copywriting Illustration", "文案配图"),
    },
    "Design": {
        "Advertising/E-commerce": ("Advertising/E-commerce Design", "广告/电商设计"),
        "Assets": ("Design Assets", "设计素材"),
        "Fashion": ("Fashion Design", "服装设计"),
        "Game": ("Game Design", "游戏设计"),
        "IP": ("IP Design", "ip设计"),
        "Logo/Icon": ("Logo/Icon Design", "logo/icon设计"),
        "Poster": ("Poster Design", "海报设计"),
        "Spatial": ("Spatial Design", "空间设计", "Space Design"),
        "UI": ("UI Design", "软件界面设计"),
    },
    "Creative Divergence": {
        "Imaginative Thinking": ("Imaginative Thinking", "想象力发散", "imagination divergence"),
        "Other": ("Other", "其他"),
    },
}
"""Theme -> subtheme -> its spelling in English, in Chinese, and others; case does not matter."""
SUBJECTS = {
    "人物": "Character",
    "动物": "Animal",
    "其他实体": "Other Entity",
    "场景": "Scene",
    "拟人": "Anthropomorphic",
}
SENTENCES: Mapping[str, tuple[str, ...]] = {
    "Descriptive": ("描述式", "descriptive sentence pattern", "描述式句式"),
    "Imperative": ("指令式", "imperative sentence pattern", "指令式句式"),
}
POINTS: Mapping[str, str] = {
    "Style": "风格",
    "World Knowledge": "世界知识",
    "Logical Reasoning": "逻辑推理",
    "Text Generation": "文本生成",
    "Attribute - Quantity": "属性-数量",
    "Attribute - Expression": "属性-表情",
    "Attribute - Material": "属性-材质",
    "Attribute - Size": "属性-大小",
    "Attribute - Shape": "属性-形状",
    "Attribute - Color": "属性-颜色",
    "Action - Hand (Character/Anthropomorphic)": "动作-人物/拟人手部动作",
    "Action - Full-body (Character/Anthropomorphic)": "动作-人物/拟人全身动作",
    "Action - Animal": "动作-动物动作",
    "Action - Contact Interaction": "动作-实体间有接触互动",
    "Action - Non-contact Interaction": "动作-实体间无接触互动",
    "Action - State": "动作-状态",
    "Relationship - Comparison": "关系-比较关系",
    "Relationship - Composition": "关系-构成关系",
    "Relationship - Inclusion": "关系-包含关系",
    "Relationship - Similarity": "关系-相似关系",
    "Compound - Imagination": "复合考点-想象力",
    "Compound - Feature Matching": "复合考点-不同实体特征匹配",
    "Grammar - Negation": "语法-否定",
    "Grammar - Pronoun Reference": "语法-代词指代",
    "Grammar - Consistency": "语法-统一性",
    "Entity Layout - Two-Dimensional Space": "实体布局-二维空间",
    "Entity Layout - Three-Dimensional Space": "实体布局-三维空间",
}
"""Test point -> its Chinese name."""
KEYS: Mapping[str, tuple[str, ...]] = {
    "en": (
        "Primary Categories",
        "Secondary Categories",
        "Subjects",
        "Sentence Structure",
        "Testpoints",
        "Testpoint Description",
    ),
    "zh": ("一级垂类", "二级垂类", "主体", "句式", "考点", "考点对应描述"),
}
ENGLISH_POINTS = {chinese: point for point, chinese in POINTS.items()}


def language(columns: Iterable[str]) -> str:
    """The language of a table with these columns, "en" or "zh"; "" if it is not of this benchmark."""
    given = set(columns)
    return next((one for one in KEYS if {"index", f"prompt_{one}", f"sub_dims_{one}"} <= given), "")


def set_name(language: str, prompts: Iterable[ArenaPrompt]) -> str:
    """The name of the set, such as "unigenbench-en-long"."""
    long = any(len(prompt.checks) > SHORT_CHECKS for prompt in prompts)
    return f"unigenbench-{language}{'-long' if long else ''}"


def parse_row(row: Mapping[str, Any], language: str, defects: Counter[str]) -> ArenaPrompt:
    """The prompt of a row; adds to `defects`.

    A prompt whose test points cannot be read has none.

    Raises:
        DataError: the row has no index or no prompt.
    """
    index, text = (str(row[name] or "").strip() for name in ("index", f"prompt_{language}"))
    if not index or not text:
        raise DataError("it has no index or no prompt")
    found = _parse_json(str(row[f"sub_dims_{language}"] or ""), defects)
    theme, subtheme, subject, sentence, points, descriptions = (found.get(key) for key in KEYS[language])
    tags = {
        **_themes(str(theme or ""), str(subtheme or ""), language, defects),
        "subject": SUBJECTS.get(str(subject), str(subject or "")),
        "sentence": _sentence(str(sentence or ""), language, defects),
    }
    return ArenaPrompt(
        id=index,
        text=text,
        tags={name: value for name, value in tags.items() if value},
        checks=_checks(points, descriptions, defects),
    )


def _parse_json(text: str, defects: Counter[str]) -> dict[str, Any]:
    repaired = MISSING_COMMA.sub(r'",\1"', text)
    for attempt in (text, repaired):
        try:
            found = json.loads(attempt)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            defects["missing comma in the test points, repaired"] += attempt is not text
            return found
    defects["test points that are not a JSON object, left out"] += 1
    return {}


def _themes(theme: str, subtheme: str, language: str, defects: Counter[str]) -> dict[str, str]:
    found = next((name for name, others in THEMES.items() if _is_one(theme, (name, *others))), "")
    if not found:
        defects["unknown theme"] += 1
        return {"theme": theme, "subtheme": subtheme}
    head, _, tail = subtheme.partition("-")
    prefixed = bool(tail) and any(_is_one(head, (name, *others)) for name, others in THEMES.items())
    spelled = tail if prefixed else subtheme
    for name, spellings in SUBTHEMES[found].items():
        if _is_one(spelled, spellings):
            usual = spellings[list(KEYS).index(language)]
            defects["subtheme in another spelling, folded"] += subtheme != usual
            return {"theme": found, "subtheme": f"{found} - {name}"}
    defects["unknown subtheme"] += 1
    return {"theme": found, "subtheme": f"{found} - {subtheme}"}


def _sentence(sentence: str, language: str, defects: Counter[str]) -> str:
    for name, spellings in SENTENCES.items():
        if _is_one(sentence, (name, *spellings)):
            usual = name if language == "en" else spellings[0]
            defects["sentence structure in another spelling, folded"] += sentence != usual
            return name
    return sentence


def _is_one(text: str, spellings: Iterable[str]) -> bool:
    return text.strip().casefold() in {spelling.casefold() for spelling in spellings}


def _checks(points: Any, descriptions: Any, defects: Counter[str]) -> tuple[Check, ...]:
    if points is None and descriptions is None:
        return ()
    lists = isinstance(points, list) and isinstance(descriptions, list)
    if not lists or len(points) != len(descriptions):
        defects["test points and descriptions that do not match, left out"] += 1
        return ()
    defects["prompt that names a test point twice"] += len(set(map(str, points))) < len(points)
    return tuple(_check(str(p), str(d).strip(), defects) for p, d in zip(points, descriptions, strict=True))


def _check(point: str, description: str, defects: Counter[str]) -> Check:
    name = ENGLISH_POINTS.get(point.strip(), point.strip())
    defects["unknown test point"] += name not in POINTS
    defects["test point without a description"] += not description
    primary, separator, _ = name.partition("-")
    return Check(
        question=description,
        dimension=primary.strip(),
        subdimension=name if separator else "",
    )
