"""Where a team's work lies: trained models, the store, the fitted fusion settings, the leaderboard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from harness.artifacts import Store
from harness.training.cards import CARD_FILE, image_ids_sha256, write_text
from harness.training.entries import ENTERED, identities_of
from harness.types import InputError, Ints

ModelKind = Literal["detector", "retriever"]


@dataclass(frozen=True)
class ModelCard:
    """What the flow needs to know of a trained model, read without loading it.

    Attributes:
        name: as in the ensemble language.
        folder: where ``weights.pt`` and ``card.json`` are.
        identity: SHA-256 over the weights' hash and the recipe: two models of one identity give the same results.
            Of what was entered, over all of it.
        weights_sha256: of ``weights.pt``; empty where there is none.
        trained_on: one entry a split that the model saw in training, or that it began with had seen, with at least
            ``split`` and ``fingerprint``.
        seconds: that the training took.
        summary: scale, steps, seed and data of the training, for people.
        copied_from: one entry a split of whose photos it saw copies in another data set.
        chosen_on: one entry a split whose photos decided which of the training's weights were taken.
        is_entered: whether there are no weights, but boxes or embeddings that were made elsewhere.
        entered: of these, fingerprint of a split -> SHA-256 over what was entered for it.
    """

    name: str
    folder: Path
    identity: str
    weights_sha256: str
    trained_on: tuple[Mapping[str, Any], ...]
    seconds: float
    summary: str = ""
    chosen_on: tuple[Mapping[str, Any], ...] = ()
    copied_from: tuple[Mapping[str, Any], ...] = ()
    is_entered: bool = False
    entered: Mapping[str, str] = field(default_factory=dict)

    def has_answers(self, fingerprint: str) -> bool:
        """Whether there can be results of the model on a split: of an entered one, only where they were entered."""
        return not self.is_entered or fingerprint in self.entered

    def identity_on(self, fingerprint: str) -> str:
        """As `identity`; of an entered model over what was entered for this split alone, whatever else there is."""
        return self.entered.get(fingerprint, self.identity)

    def saw(self, fingerprint: str) -> str | None:
        """How the model knows the photos of this fingerprint: ``trained on``, ``trained on copies of``,
        ``chosen on``; None if it does not.

        The name of the split does not count: the same photos may be a training split elsewhere.
        """
        ways = (
            ("trained on", self.trained_on),
            ("trained on copies of", self.copied_from),
            ("chosen on", self.chosen_on),
        )
        for how, photos in ways:
            if any(seen["fingerprint"] == fingerprint for seen in photos):
                return how
        return None

    def saw_any(self, fingerprint: str, image_ids: Ints, all_ids: Ints) -> bool:
        """Whether the model may have been trained on one of these photos of a split.

        A card keeps the SHA-256 of the ids it was trained on: only if they are just the rest of the split is it known
        that it saw none of these. Photos that chose among the states of a training do not count: what is fitted on
        them next chooses by them in the same way.

        Args:
            fingerprint: of the split.
            image_ids: the photos in question.
            all_ids: all photos of the split.
        """
        rest = image_ids_sha256(np.setdiff1d(all_ids, image_ids))
        return any(seen["fingerprint"] == fingerprint and seen["image_ids_sha256"] != rest for seen in self.trained_on)


@dataclass(frozen=True)
class Workplace:
    """The folders below a team's working folder.

    Attributes:
        root: the folder.
        other_board: path or URL of the leaderboard, where it is not the folder's own.
    """

    root: Path
    other_board: str | None = None

    @property
    def store(self) -> Store:
        """The store of stage results."""
        return Store(self.root / "store")

    @property
    def board(self) -> str:
        """Path or URL of the leaderboard's database."""
        return self.other_board or str(self.root / "leaderboard.sqlite")

    @property
    def has_board(self) -> bool:
        """Whether there is a leaderboard to be read; of one that is not the folder's own nobody knows before."""
        return self.other_board is not None or Path(self.board).exists()

    @property
    def pages(self) -> Path:
        """The folder of the leaderboard's pages."""
        return self.root / "leaderboard"

    @property
    def fusion(self) -> Path:
        """The fusion settings that were fitted on training photos, one entry a fusion."""
        return self.root / "fusion.json"

    def every_fitted_fusion(self) -> dict[str, Any]:
        """What was kept of every fusion that was fitted here, by its name; see `harness.jobs.fusion_lab.FusionFit`.

        Raises:
            InputError: the file is damaged.
        """
        try:
            kept = json.loads(self.fusion.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise self.damaged_fusion(error) from error
        if not isinstance(kept, dict):
            raise self.damaged_fusion("it is no object")
        return kept

    def fitted_fusion(self, source: str) -> dict[str, Any] | None:
        """What was kept of a fusion such as ``WBF_5``; None without.

        Raises:
            InputError: the file is damaged.
        """
        entry = self.every_fitted_fusion().get(source)
        if entry is not None and not isinstance(entry, dict):
            raise self.damaged_fusion(f"{source} is no object")
        return entry

    def keep_fusions(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep settings of fusions, each with what it was fitted for and on; those of others stay."""
        with self._changing(self.fusion):
            write_text(self.fusion, json.dumps(self.every_fitted_fusion() | dict(entries), indent=1) + "\n")

    def damaged_fusion(self, why: object) -> InputError:
        """The error that names the file of fitted fusion settings and the remedy."""
        return InputError(f"{self.fusion}: is damaged ({why}); remove it, then fit again: run.py tune fusion")

    @property
    def ms_loss(self) -> Path:
        """The hyper-parameters of the multi-similarity loss that were found, one entry a model and scale."""
        return self.root / "ms_loss.json"

    def every_ms_loss(self) -> dict[str, dict[str, Any]]:
        """What was kept of every search, by ``model/scale``, the latest last; see `harness.jobs.tuned_losses`.

        Raises:
            InputError: the file is damaged.
        """
        try:
            kept = json.loads(self.ms_loss.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise self.damaged_ms_loss(error) from error
        if not isinstance(kept, dict) or not all(isinstance(entry, dict) for entry in kept.values()):
            raise self.damaged_ms_loss("expected an object of objects, one a model and scale")
        return kept

    def keep_ms_loss(self, name: str, entry: Mapping[str, Any] | None) -> bool:
        """Keep what a search found, or remove it; that of others stays.

        Args:
            name: ``model/scale``.
            entry: None to remove it.

        Returns:
            Whether there was an entry of this name.
        """
        with self._changing(self.ms_loss):
            kept = self.every_ms_loss()
            was_there = kept.pop(name, None) is not None
            if entry is not None:
                kept[name] = dict(entry)
            if entry is not None or was_there:
                write_text(self.ms_loss, json.dumps(kept, indent=1) + "\n")
            return was_there

    def damaged_ms_loss(self, why: object) -> InputError:
        """The error that names the file of found hyper-parameters and the remedy."""
        return InputError(f"{self.ms_loss}: is damaged ({why}); remove it, then search again: run.py tune ms-loss")

    @property
    def selections(self) -> Path:
        """The ensembles that were chosen by their accuracy, and the photos that chose them."""
        return self.root / "selections.json"

    def every_selection(self) -> dict[str, list[dict[str, Any]]]:
        """Canonical spec -> where it was chosen, one entry a split; see `harness.jobs.selection`.

        Raises:
            InputError: the file is damaged.
        """
        try:
            kept = json.loads(self.selections.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise self.damaged_selections(error) from error
        is_right = isinstance(kept, dict) and all(
            isinstance(entries, list) and all(isinstance(one, dict) and "fingerprint" in one for one in entries)
            for entries in kept.values()
        )
        if not is_right:
            raise self.damaged_selections("expected an object of lists of objects, one a spec")
        return dict(kept)

    def keep_selection(self, spec: str, entry: Mapping[str, Any]) -> None:
        """Keep that an ensemble was chosen on photos, beside what was chosen before; of the same photos the latest.

        Args:
            spec: canonical.
            entry: with at least ``split`` and ``fingerprint``.
        """
        with self._changing(self.selections):
            kept = self.every_selection()
            others = [one for one in kept.get(spec, []) if one["fingerprint"] != entry["fingerprint"]]
            kept[spec] = [*others, dict(entry)]
            write_text(self.selections, json.dumps(kept, indent=1) + "\n")

    def damaged_selections(self, why: object) -> InputError:
        """The error that names the file of chosen ensembles and the remedy."""
        return InputError(f"{self.selections}: is damaged ({why}); remove it, then choose again: run.py select")

    @property
    def inference(self) -> Path:
        """How detectors look at photos where not as their recipes say, one entry a detector."""
        return self.root / "inference.json"

    def kept_inference(self) -> dict[str, dict[str, Any]]:
        """Detector -> settings that were kept for it, without defaults; none where nothing was kept.

        Raises:
            InputError: the file is damaged.
        """
        return _kept_settings(self.inference, self.damaged_inference)

    def keep_inference(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep settings of detectors, for every command from now on; empty ones restore the recipe's."""
        with self._changing(self.inference):
            _keep_settings(self.inference, self.kept_inference(), changes)

    @property
    def looks(self) -> Path:
        """How retrievers look at crops where not plainly, one entry a retriever."""
        return self.root / "embedding.json"

    def kept_looks(self) -> dict[str, dict[str, Any]]:
        """Retriever -> settings that were kept for it, without defaults; none where nothing was kept.

        Raises:
            InputError: the file is damaged.
        """
        return _kept_settings(self.looks, self.damaged_looks)

    def keep_looks(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep settings of retrievers, for every command from now on; empty ones restore the defaults."""
        with self._changing(self.looks):
            _keep_settings(self.looks, self.kept_looks(), changes)

    def damaged_looks(self, why: object) -> InputError:
        """The error that names the file of the retrievers' settings and the remedy."""
        return InputError(f"{self.looks}: is damaged ({why}); remove it, then keep settings again: run.py embed --keep")

    def _changing(self, path: Path) -> FileLock:
        """One process at a time lays something over what a file holds."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_name(f".{path.name}.lock"))

    def damaged_inference(self, why: object) -> InputError:
        """The error that names the file of inference settings and the remedy."""
        return InputError(
            f"{self.inference}: is damaged ({why}); remove it, then keep settings again: run.py detect --keep"
        )

    def model_folder(self, kind: ModelKind, name: str) -> Path:
        """Where a model of this name is trained and kept."""
        return self.root / "models" / f"{kind}s" / name

    def model_card(self, kind: ModelKind, name: str) -> ModelCard:
        """The card of a trained model.

        Raises:
            InputError: the model has not been trained here, or its card is damaged.
        """
        folder = self.model_folder(kind, name)
        path = folder / CARD_FILE
        try:
            card = json.loads(path.read_bytes())
            is_entered = card.get("kind") == ENTERED
            recipe = json.dumps(card["entries" if is_entered else "recipe"], sort_keys=True)
            weights = "" if is_entered else str(card["weights_sha256"])
            return ModelCard(
                name=str(card["name"]),
                folder=folder,
                identity=hashlib.sha256(f"{weights}\n{recipe}".encode()).hexdigest(),
                weights_sha256=weights,
                trained_on=(*card["trained_on"], *card.get("init_trained_on", ())),
                seconds=0.0 if is_entered else float(card["seconds"]),
                summary=_summary(kind, card),
                chosen_on=(*card.get("chosen_on", ()), *card.get("init_chosen_on", ())),
                copied_from=tuple(card.get("copied_from", ())),
                is_entered=is_entered,
                entered=identities_of(card["entries"]) if is_entered else {},
            )
        except FileNotFoundError:
            have = ", ".join(self.trained(kind)) or "none"
            raise InputError(
                f"{folder}: {kind} {name} has not been trained here (trained: {have}); "
                f"train it with: run.py train {kind} {name} --data DIR --work {self.root}"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: is damaged ({type(error).__name__}: {error}); remove the folder {folder} and train again"
            ) from error

    def refuse_near_name(self, kind: ModelKind, name: str) -> None:
        """Refuse a name that differs from a model's only by upper case: on many disks it would be one folder.

        Raises:
            InputError: there is such a model.
        """
        for other in self.trained(kind):
            if other.lower() == name.lower() and other != name:
                raise InputError(f"{name}: there is a {kind} {other} here already; more than upper case has to differ")

    def trained(self, kind: ModelKind) -> list[str]:
        """Names of the models of this kind that are ready."""
        folder = self.root / "models" / f"{kind}s"
        return sorted(path.parent.name for path in folder.glob(f"*/{CARD_FILE}"))


def _kept_settings(path: Path, damaged: Callable[[object], InputError]) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise damaged(error) from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise damaged("expected an object of objects, one a model")
    return entries


def _keep_settings(path: Path, before: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> None:
    entries = {name: entry for name, entry in {**before, **changes}.items() if entry}
    write_text(path, json.dumps(entries, indent=1) + "\n")


def _summary(kind: ModelKind, card: Mapping[str, Any]) -> str:
    if card.get("kind") == ENTERED:
        what = "boxes" if kind == "detector" else "embeddings"
        return f"{what} made elsewhere, by a model trained on: {card['trained_on_said']}"
    if "summary" in card:
        return str(card["summary"])
    before = card.get("init_trained_on", ())
    begun = f", begun with a model of {_photos(before)}" if before else ""
    return f"{card['scale']}, {card['num_steps']} steps, seed {card['seed']}, on {_photos(card['trained_on'])}{begun}"


def _photos(records: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{seen['num_photos']} {'RENDERED ' if seen['rendered'] else ''}photos of {seen['split']}" for seen in records
    )
