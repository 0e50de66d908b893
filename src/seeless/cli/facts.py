"""What the docstring of a method says in paragraphs with a name: its formula, signal, paper, original, deviations.

A fact begins a line with its name and a colon, and ends at an empty line or where the next one begins:

    Formula: score_j = mean over heads of A[last, j], A the softmax attention of layer `layer - 1`.
    Signal: attention of the last prompt token in the decoder.
"""

import re

FACTS = {
    "Formula": "what is computed for a token, and which tokens stay",
    "Signal": "what it reads: attention of which rows of tower or decoder, keys, embeddings, pixels, or none",
    "Paper": "authors, title, venue, arXiv number, and sections or equations",
    "Original": "the repository of the authors' code and its licence, or that none was found",
    "Deviations": "where this code differs from paper and released code, or `none known`",
}
BASELINE = ("Formula", "Signal")  # what a method without a paper says, too
_NAMES = "|".join(FACTS)
_FACT = re.compile(rf"^({_NAMES}):[ \n](.*?)(?=\n\n|\n(?:{_NAMES}):[ \n]|\Z)", re.MULTILINE | re.DOTALL)


def facts_of(doc: str) -> dict[str, str]:
    """The facts in a docstring by name; lines of a paragraph are joined, those of a list stay lines.

    >>> facts_of("Keep the first.\\n\\nFormula: score_j = -j, the place\\nof the token.\\nSignal: none.")
    {'Formula': 'score_j = -j, the place of the token.', 'Signal': 'none.'}
    """
    return {
        name: text.strip() if text.startswith("- ") else " ".join(text.split()) for name, text in _FACT.findall(doc)
    }


def remarks_of(doc: str) -> list[str]:
    """The other paragraphs, without the first, which sums the method up.

    >>> remarks_of("Keep the first.\\n\\nFormula: score_j = -j.\\n\\nPositions are\\nkept.")
    ['Positions are kept.']
    """
    paragraphs = re.split(r"\n{2,}", _FACT.sub("", doc))
    return [" ".join(text.split()) for text in paragraphs[1:] if text.strip()]


def missing_facts(doc: str, paper: str) -> list[str]:
    """A sentence for every fact that the docstring of a method lacks, `paper` being its class attribute."""
    given = facts_of(doc)
    wanted = FACTS if paper else BASELINE
    return [
        f"its docstring needs a paragraph '{name}: ...' that says {FACTS[name]}"
        for name in wanted
        if not given.get(name)
    ]
