"""Whether an answer is the expected one: word for word, or as VQA's evaluation compares short answers."""

import re

ARTICLES = {"a", "an", "the"}
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
JOINED = re.compile(r"(?<=\d),(?=\d)|(?<!\d)\.|\.(?!\d)|['’]")
MARKS = re.compile(r"[^\w\s.]")


def normalised(text: str) -> str:
    """Lower case, without articles and punctuation, number words as digits.

    A point or comma within a number stays or goes with it; an apostrophe joins what it stood in.

    >>> normalised("A man's, two  Dogs!"), normalised("1,200.5"), normalised("The end.")
    ('mans 2 dogs', '1200.5', 'end')
    """
    words = MARKS.sub(" ", JOINED.sub("", text.lower())).split()
    return " ".join(NUMBERS.get(word, word) for word in words if word not in ARTICLES)


def exact(prediction: str, answer: str) -> bool:
    """Whether they are the same but for blanks around them."""
    return prediction.strip() == answer.strip()


def alike(prediction: str, answer: str) -> bool:
    """Whether they are the same once normalised.

    >>> alike("Two.", "2"), alike("two dogs", "2")
    (True, False)
    """
    return normalised(prediction) == normalised(answer)
