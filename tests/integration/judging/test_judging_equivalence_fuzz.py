"""Checks the claims of the equivalence grader on random pairs against databases. The generator can check more."""

from collections import Counter

from judging_equivalence_pairs import check


def test_no_claim_is_refuted():
    answers, refuted = Counter(), []
    for seed in range(400):
        answer, pair = check(seed)
        answers[answer] += 1
        refuted += [(seed, answer, *pair)] if pair else []
    assert not refuted
    assert answers["equivalent"] > 120
    assert answers["different"] > 80
