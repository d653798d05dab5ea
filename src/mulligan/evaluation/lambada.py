"""LAMBADA (Paperno et al. 2016) in OpenAI's form (Radford et al. 2019): can the last word of a passage be foreseen?

The last word is what follows the last blank, with that blank. Its probability is that of its tokens together; it
counts as foreseen if each is the likeliest. Perplexity is exp of the mean negative log-probability of a *word*, not of
a token.
"""

from mulligan.data.passages import Passages
from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.likelihood import Pair, likelihoods
from mulligan.evaluation.suites import Score, Subject, exp_score, mean_score


class LambadaSuite:
    def __init__(self, *, path: str, revision: str | None = None, limit: int | None = None) -> None:
        """``path``: a local file, or a data set of the hub. ``limit`` takes the first so many passages."""
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit} must be at least 1, or null for all passages")
        self.passages = Passages(path=path, split="test", revision=revision, limit=limit)

    def read(self) -> list[str]:
        return self.passages.read()

    def __call__(self, subject: Subject) -> dict[str, Score]:
        pairs = []
        for number, passage in enumerate(self.read(), 1):
            try:
                pairs.append(last_word(subject.tokenizer, passage))
            except ValueError as error:
                raise ValueError(f"{self.passages.path}, passage {number}: {error}") from None
        words = likelihoods(subject.model, pairs, batch_size=subject.batch_size, autocast_dtype=subject.autocast_dtype)
        return {
            "accuracy": mean_score([float(word.is_greedy) for word in words]),
            "perplexity": exp_score(mean_score([-word.log_probability for word in words])),
            "passages": Score(len(words)),
        }


def last_word(tokenizer: Tokenizer, passage: str) -> Pair:
    """A passage at the beginning of a document, parted before its last word.

    The whole is tokenized, for so the model has learned text. Where a token of it reaches over the border, there is no
    border to score from: then context and word are tokenized each by itself.
    """
    context, blank, word = passage.rstrip().rpartition(" ")
    if not context or not word:
        raise ValueError(f"the passage {passage[:40]!r} must hold two words or more")
    before = tokenizer.encode(context).tolist()
    whole = tokenizer.encode(context + blank + word).tolist()
    is_parted = whole[: len(before)] == before
    after = whole[len(before) :] if is_parted else tokenizer.encode(blank + word).tolist()
    return Pair([tokenizer.begin_id, *before], after)
