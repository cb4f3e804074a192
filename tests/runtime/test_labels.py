"""The four classes in every spelling, and their order."""

from __future__ import annotations

import pytest

from stageproof.runtime.labels import ALPHABETICAL, CDR, LABELS, canonical_label


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize(
    "spell",
    [
        str,
        str.lower,
        str.upper,
        lambda name: name.replace("Demented", "_Demented"),
        lambda name: name.replace("Very", "Very ").replace("Demented", " Demented"),
        lambda name: name.replace("Very", "very-").replace("Demented", "-dementia"),
        lambda name: f"  {name}\n",
        lambda name: (
            name.replace("NonDemented", "No Impairment").replace("yM", "y M").replace("Demented", " Impairment")
        ),
        lambda name: name.replace("NonDemented", "no_impairment").replace("Demented", "_IMPAIRED"),
    ],
)
def test_every_spelling_is_one_class(label: str, spell) -> None:
    assert canonical_label(spell(label)) == label


@pytest.mark.parametrize("name", ["", "Demented", "Severe Demented", "NonDementedNonDemented", "0", "Mild", "démented"])
def test_other_names_are_no_class(name: str) -> None:
    assert canonical_label(name) is None


def test_orders() -> None:
    assert [CDR[label] for label in LABELS] == [0, 0.5, 1, 2]
    assert ALPHABETICAL == ("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented")
