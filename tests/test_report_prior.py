"""What the pages say about the prior and how far it was followed."""

import pytest

from besselflow.report.prior import describe_diffusion, prior_note, uncertainty_note

INFO = {"trained_on": ["mouse-1", "phantom vessels 1", "phantom vessels 4"]}


def record(prior, **facts):
    return {"weights": {"prior": prior, "inr": 1 - prior}, "checked": True} | facts


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (1.0, "is 100% that of the prior. The prior knows structures like those of this sample."),
        (0.5, "50% that of the prior and 50% inr. The prior knows structures like those of this"),
        (0.1, "knows little of structures like these, and was hardly followed."),
    ],
)
def test_the_share_of_the_prior_is_put_into_words(prior, words):
    note = prior_note([record(prior)], INFO)
    assert words in note and "decided by measurements that were kept from it" in note
    assert note.endswith("Prior trained on: mouse-1, 2 phantoms of vessels.")


def test_acquisitions_of_a_volume_are_counted():
    info = {"trained_on": ["a", "b", "a acquisition 2", "a acquisition 3", "phantom cells 1"]}
    note = prior_note([record(1.0)], info)
    assert note.endswith("Prior trained on: a (3 acquisitions), b, 1 phantom of cells.")


def test_a_prior_that_the_data_contradict_is_not_said_to_know_the_sample():
    note = prior_note([record(1.0, doubted=False), record(1.0, doubted=True)], INFO)
    assert "The projections contradict the prior more than they did in its training" in note
    assert "knows structures like those" not in note


def test_without_a_check_nothing_is_said_to_be_known():
    note = prior_note([record(1.0, checked=False)], INFO)
    assert "Nothing that was kept from it decided this." in note and "knows" not in note
    assert prior_note([{}], INFO) is None


@pytest.mark.parametrize("prior", [0.0, 0.4, 1.0])
def test_the_methods_section_and_the_caption_say_what_was_mixed(prior):
    records = [record(prior, evaluations=6, samples=4)]
    text, caption = describe_diffusion(records, INFO), uncertainty_note(records)
    assert ("neural representation alone" in text) == (prior == 0)
    assert ("40% of the model, 60% of inr" in text) == (prior == 0.4)
    assert "4 posterior samples" in text and "posterior samples" in caption
    assert ("which were mixed" in caption) == (prior == 0.4)
