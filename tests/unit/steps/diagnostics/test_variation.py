from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.models.families import recipe_from
from pipeline.steps.diagnostics.churn import variation

PARTS = {"als": {"family": "als"}, "fm": {"family": "lightfm"}}
RECIPES = {
    "als": recipe_from({"family": "als"}),
    "lightfm": recipe_from({"family": "lightfm"}),
    "both": recipe_from({"family": "blend", "parts": PARTS}),
}


@pytest.mark.parametrize(("name", "remarked"), [("als", False), ("lightfm", True), ("both", True)])
def test_lists_of_a_recipe_that_is_not_deterministic_have_a_remark(name, remarked):
    remark = variation(SimpleNamespace(recipes=RECIPES), name)
    assert remark == (
        f"{name} is not deterministic: another fit on equal data may give other lists"
        if remarked
        else None
    )


def test_a_blend_with_lightfm_folds_in():
    assert RECIPES["both"].capabilities.fold_in
