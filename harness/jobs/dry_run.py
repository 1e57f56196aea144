"""The stages of a pipeline looked at and not run: which results are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from harness.artifacts import Artifact, Draft, Recipe, Store
from harness.box_stages import BoxSet
from harness.pipeline import Pipeline
from harness.spec import BoxSource, Ensemble
from harness.types import Embeddings, Ints


class Missing(Exception):
    """A stage's result is not in the store."""


class DryStore(Store):
    """Makes nothing: what is missing ends the look.

    Attributes:
        there: names of the results of a common stage that were found.
        seen: how many results of each other stage were found.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.there: set[str] = set()
        self.seen: Counter[str] = Counter()

    def get(self, recipe: Recipe, make: Callable[[Draft], Mapping[str, Any]]) -> tuple[Artifact, bool]:
        """The result of a recipe that is there; `Missing` otherwise."""
        if recipe.stage == "truth":  # small, and it says which boxes speak
            return super().get(recipe, make)
        found = self.find(recipe)
        if found is None:
            raise Missing
        self.seen[recipe.stage] += 1
        return found, False

    def get_many(
        self,
        recipes: Mapping[str, Recipe],
        make: Callable[[Mapping[str, Draft]], Mapping[str, Mapping[str, Any]]],
    ) -> tuple[dict[str, Artifact], set[str]]:
        """Several results, if all are there; `Missing` otherwise."""
        if "" in recipes:  # a single one
            return super().get_many(recipes, make)
        found = {name: self.find(recipe) for name, recipe in recipes.items()}
        self.there |= {name for name, artifact in found.items() if artifact is not None}
        if None in found.values():
            raise Missing
        return {name: artifact for name, artifact in found.items() if artifact is not None}, set()


@dataclass(frozen=True)
class Unread:
    """Stands for the embeddings of a model, which nobody reads."""

    vectors_ND: Any


class DryPipeline(Pipeline):
    """The same stages, looked at and not run."""

    store: DryStore

    def __init__(self, of: Pipeline) -> None:
        super().__init__(
            of.work,
            of.split,
            image_ids=of.image_ids,
            inference=of.inference,
            fusions=of.fusions,
            looks=of.looks,
            resources=of.resources,
            search_options=of.search_options,
        )
        self.store = DryStore(of.store.root)
        self._training: DryPipeline | None = None

    @property
    def there(self) -> set[str]:
        """Detectors whose boxes were found."""
        return self.store.there

    @property
    def seen(self) -> Counter[str]:
        """How many results of each stage were found."""
        return self.store.seen

    def boxes_if_there(self, source: BoxSource) -> BoxSet | None:
        """The boxes; None where they are still to be made."""
        try:
            return self.boxes(source)
        except Missing:
            return None

    def has_embeddings(self, name: str, boxes: BoxSet) -> bool:
        """Whether a model's features of the boxes are in the store."""
        return self.store.find(self.embed_recipe(self.retriever_card(name), boxes)) is not None

    def embeddings(self, names: Sequence[str], boxes: BoxSet) -> tuple[dict[str, Embeddings], dict[str, str]]:
        """Of the right shape, without a byte read."""
        recipes = {name: self.embed_recipe(self.retriever_card(name), boxes) for name in names}
        shapes = {}
        for name, recipe in recipes.items():
            found = self.store.find(recipe)
            if found is None:
                raise Missing
            shapes[name] = (int(found.facts["rows"]), int(found.facts["dimensions"]))
        unread = {name: Unread(np.broadcast_to(np.float16(0), shape)) for name, shape in shapes.items()}
        return cast(dict[str, Embeddings], unread), {name: recipe.address for name, recipe in recipes.items()}

    def of_training_photos(self) -> DryPipeline:
        """The same over training photos, looked at as well; their annotations are read once."""
        if self._training is None:
            self._training = DryPipeline(super().of_training_photos())
        return self._training

    def look_at_answers(self, ensemble: Ensemble, boxes: BoxSet, decimals: int, rows: Ints | None) -> None:
        """Count which of the steps' and the search's results are there."""
        try:
            ranking, addresses = self.rank(ensemble, boxes, rows=rows)
            self.submission(boxes, ranking, addresses["search"], decimals)
        except Missing:
            return
