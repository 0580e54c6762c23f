"""The legend has each id that a conformance test names, and no other."""

from tests.conformance import test_ietf, test_tus1
from tests.conformance.legend import REQUIREMENTS, SECTIONS, group_of


def ids_in_use():
    tus = (parameters.id.removesuffix(f"-{parameters.values[0].__name__}") for parameters in test_tus1.ROWS)
    return {name for ids in tus for name in ids.split("+")} | {name for _, ids, *_ in test_ietf.ROWS for name in ids}


def test_every_id_has_its_words():
    assert sorted(REQUIREMENTS) == sorted(ids_in_use())


def test_every_group_has_its_section():
    assert {group_of(name) for name in REQUIREMENTS} == set(SECTIONS)
