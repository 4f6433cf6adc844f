"""An interrupt that ends a training after the step under way, with a checkpoint."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import transformers


class Stop(transformers.TrainerCallback):
    """Ends the training after the step under way, with a checkpoint, when asked to."""

    def __init__(self) -> None:
        self.asked = False

    def on_step_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **kwargs: object,
    ) -> None:
        """Ask the Trainer to save and stop."""
        if self.asked:
            control.should_save = True
            control.should_training_stop = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the first interrupt as a wish to stop; a second one interrupts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        old = {number: signal.getsignal(number) for number in numbers}

        def take(number: int, frame: object) -> None:
            self.asked = True
            for each in numbers:
                signal.signal(each, signal.default_int_handler)

        for number in numbers:
            signal.signal(number, take)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, old[number])
