"""Names of acquisitions that a prior learns from lead back to their volumes."""

from hypothesis import given
from hypothesis import strategies as st

from besselflow.diffusion.names import acquisition_name, parse_item, training_item, volume_name

SAMPLES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True)
NUMBERS = st.integers(1, 100)


@given(name=SAMPLES, number=NUMBERS)
def test_items_tell_what_is_imaged(name, number):
    assert parse_item(training_item(name, number)) == ("train", name, number)


@given(name=SAMPLES, number=NUMBERS)
def test_acquisitions_tell_their_volume(name, number):
    assert volume_name(acquisition_name(name, number)) == name


def test_items_of_other_kinds_have_names_with_hyphens_and_digits():
    assert parse_item("phantom-12") == ("phantom", "12", 1)
    assert parse_item("own-mouse-3-y") == ("own", "mouse-3-y", 1)
    assert parse_item("train-2-b") == ("train", "2-b", 1)


@given(
    names=st.lists(SAMPLES, min_size=2, max_size=2, unique=True),
    numbers=st.tuples(NUMBERS, NUMBERS),
)
def test_no_two_samples_share_an_item_or_an_acquisition(names, numbers):
    for naming in (training_item, acquisition_name):
        one, other = (naming(name, number) for name, number in zip(names, numbers, strict=True))
        assert one != other
