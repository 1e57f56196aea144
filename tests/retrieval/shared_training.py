"""A training shared out over processes: python shared_training.py PROCESSES PLAN.json, which names a list of trainings.

A training's ``kill_at`` ends the last process at that step without a word, as the system does when memory runs out.
"""

import json
import os
import signal
import sys
from pathlib import Path

from harness.training import fitting, launching
from harness.training.processes import place

fitting.LOG_EVERY = 1  # before anybody takes it


def main(num_processes: int, plan: Path) -> None:
    status = launching.launch(num_processes)
    if status is not None:
        sys.exit(status)

    from harness.data.deepfashion2 import read_split
    from harness.data.garments import garments_of
    from harness.retrieval.module import RetrieverModule
    from harness.retrieval.recipes import RetrieverRecipe
    from harness.retrieval.training import train

    whole_step = RetrieverModule.training_step
    with launching.ending_together():
        for one in json.loads(plan.read_text()):
            split = read_split(Path(one["data"]), "train")
            kill_at = one.get("kill_at")

            def step(self, batch, batch_idx, kill_at=kill_at):
                if batch["step"] == kill_at and place().rank == num_processes - 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                return whole_step(self, batch, batch_idx)

            RetrieverModule.training_step = step
            recipe = RetrieverRecipe.model_validate(one["recipe"])
            parts = [garments_of(split, split.photos.image_ids)]
            train("m12", recipe, "tiny", parts, Path(one["out"]), seed=1, deepfashion2_only=True, **one["how"])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
