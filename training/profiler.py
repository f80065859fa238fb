"""Where the time of a training step goes: torch.profiler over a few steps, as a table and as a Chrome trace."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

SKIPPED = 3  # steps at the start: memory is being claimed, kernels are being chosen


class StepProfiler:
    """Measures `steps` steps after the first few. Call `step` at the end of each, `close` at the end of the training.

    Leaves profile.txt (operators by their own time) and trace.json (for chrome://tracing or ui.perfetto.dev) in
    `folder`, and says so.
    """

    def __init__(self, folder: Path, steps: int, say: Callable[[str], None]):
        self.folder, self.steps, self.say = folder, steps, say
        self.done = 0
        self.profile: profile | None = None

    def step(self) -> None:
        """A step has ended."""
        self.done += 1
        if self.steps and self.done == SKIPPED:
            gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self.profile = profile(activities=[ProfilerActivity.CPU, *gpu], record_shapes=True)
            self.profile.start()
        elif self.done == SKIPPED + self.steps:
            self.close()

    def close(self) -> None:
        """Writes what has been measured so far, if there is anything."""
        if self.profile is None:
            return
        measured, self.profile = self.profile, None
        measured.stop()
        column = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = measured.key_averages().table(sort_by=column, row_limit=30, max_name_column_width=40)
        (self.folder / "profile.txt").write_text(table, encoding="utf-8")
        measured.export_chrome_trace(str(self.folder / "trace.json"))
        head = "\n".join(line[:100] for line in table.splitlines()[:12])
        self.say(
            f"{min(self.done - SKIPPED, self.steps)} steps measured:\n{head}\n{self.folder}: profile.txt, trace.json"
        )
