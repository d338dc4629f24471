"""A peer in a process of its own: its threads, allocator and settings touch nobody else's."""

import importlib
import multiprocessing
import sys
import time
import traceback

import numpy as np


def per_run(run, least=0.02):
    """A sampler of seconds a run, over enough runs to fill `least` seconds."""
    run()
    begin = time.perf_counter()
    run()
    runs = max(1, round(least / max(time.perf_counter() - begin, 1e-6)))

    def sample():
        begin = time.perf_counter()
        for _ in range(runs):
            run()
        return (time.perf_counter() - begin) / runs

    return sample


def prepared(peer, case):
    """A sampler, the result of a run in float64, and the inputs, which live as long; None where it has no such case."""
    prepare = getattr(peer, type(case).__name__.lower(), None)
    inputs = case.inputs()
    made = prepare(case, inputs) if prepare else None
    if made is None:
        return None, None, None
    run, result = made
    # A run that takes its own time says the seconds of what counts in it.
    sampler = run if getattr(run, "is_sampler", False) else per_run(run)
    return sampler, np.array(result()), inputs


def serve(module, threads, pipe):
    sys.dont_write_bytecode = True
    peer = importlib.import_module(module)
    peer.start(threads)
    pipe.send((peer.NAME, peer.VERSION))
    sample = inputs = None
    while True:
        try:
            case = pipe.recv()
        except EOFError:  # whoever asks has ended
            return
        try:
            if case == "time":
                pipe.send((sample(), None))
            else:
                sample = inputs = None  # the memory of the case before it goes first
                sample, result, inputs = prepared(peer, case)
                pipe.send((result, None))
        except Exception:
            pipe.send((None, traceback.format_exc()))


class Peer:
    def __init__(self, module, threads):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(module, threads, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.NAME, self.VERSION = self.pipe.recv()

    def ask(self, what):
        self.pipe.send(what)
        answer, problem = self.pipe.recv()
        if problem:
            raise SystemExit(f"peers: {self.NAME}: {what}:\n{problem}")
        return answer

    def prepare(self, case):
        """The result of a run, or None."""
        return self.ask(case)

    def sample(self):
        """Seconds a run of the case prepared last."""
        return self.ask("time")
