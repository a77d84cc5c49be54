import pytest

from hilum.errors import UsageError
from hilum.recipe.findings import (
    NIH_FINDINGS,
    NO_FINDING,
    VOCABULARY,
    canonical,
    in_order,
    named,
    one_spelling,
    tokens,
)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Pleural_Thickening", "Pleural Thickening"),
        ("Pleural thickening", "Pleural Thickening"),
        ("Infiltrate", "Infiltration"),
        ("Pleural Effusion", "Effusion"),
        ("Pulmonary fibrosis", "Fibrosis"),
        ("ILD", "Interstitial Lung Disease"),
        ("Aortic enlargement", "Aortic Enlargement"),
        ("Nodule/Mass", "Nodule/Mass"),
        ("PNEUMONIA", "Pneumonia"),
        ("NORMAL", NO_FINDING),
        ("No finding", NO_FINDING),
        ("gesund", NO_FINDING),
        ("Healthy", NO_FINDING),
        ("Unauffa\u0308llig", NO_FINDING),
        ("virus", "Viral Pneumonia"),
    ],
)
def test_spellings_of_the_data_sets(spelling, name):
    assert canonical(spelling) == name


def test_one_spelling_stands_for_all_of_a_finding():
    names = ["COVID_19", "covid 19 ", "Covid-19", "normal", "Healthy", "Bu\u0308lau", "B\u00fclau"]
    assert one_spelling(names) == {
        "COVID_19": "COVID_19",
        "covid 19 ": "COVID_19",
        "Covid-19": "Covid-19",
        "normal": NO_FINDING,
        "Healthy": NO_FINDING,
        "Bu\u0308lau": "Bu\u0308lau",
        "B\u00fclau": "Bu\u0308lau",
    }


def test_every_canonical_name_is_its_own():
    assert [canonical(name) for name in VOCABULARY] == list(VOCABULARY)


def test_no_spelling_means_two_findings():
    spellings = [s.casefold() for name, others in VOCABULARY.items() for s in (name, *others)]
    assert len(set(spellings)) == len(spellings)


def test_there_are_14_nih_findings():
    assert len(set(NIH_FINDINGS)) == 14
    assert NO_FINDING not in NIH_FINDINGS


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"'Pnuemonia'; known are: Pneumonia \(did you mean it\?\)"):
        canonical("Pnuemonia")


def test_a_name_is_not_found_inside_another():
    with pytest.raises(UsageError):
        canonical("No Pneumonia")
    assert tokens("No Pneumonia|Mass") == ("No Pneumonia", "Mass")


def test_tokens_are_canonical_once_each_and_trimmed():
    assert tokens(" Mass | Pleural_Thickening|Mass|") == ("Mass", "Pleural Thickening")
    assert tokens("Mass;Hernia", ";") == ("Mass", "Hernia")
    assert tokens("") == ()


def test_a_name_outside_the_vocabulary_is_kept():
    assert named(" COVID-19 ") == "COVID-19"


def test_order_is_the_vocabularys_then_the_alphabets():
    assert in_order(["Zebra", "Mass", "Ant", "Effusion", "Mass"]) == ("Effusion", "Mass", "Ant", "Zebra")
