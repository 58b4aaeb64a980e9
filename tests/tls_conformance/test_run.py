"""What `run` makes of results: python3 -m unittest discover -s tests/tls_conformance"""

import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import sys
import unittest

# `run` has no ending: it is told how to be read, and is to leave nothing behind.
sys.dont_write_bytecode = True
LOADER = importlib.machinery.SourceFileLoader("conformance_run", str(pathlib.Path(__file__).with_name("run")))
SPEC = importlib.util.spec_from_loader(LOADER.name, LOADER)
RUN = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(RUN)


def mode(passed, failed=0):
    return {"passed": passed, "failed": {f"conversation {number}": "an error" for number in range(failed)}}


class Report(unittest.TestCase):
    def exit_code(self, ordinary, compact, are_named=False):
        with contextlib.redirect_stdout(io.StringIO()):
            return RUN.report({"script": {"ordinary": ordinary, "compact": compact}}, are_named)

    def test_results_at_the_baseline_then_good(self):
        at = {name: mode(*bounds) for name, bounds in RUN.BASELINE.items()}
        self.assertEqual(self.exit_code(**at), 0)

    def test_one_more_fails_in_both_modes_then_failed(self):
        passed, failed = RUN.BASELINE["ordinary"]
        self.assertEqual(self.exit_code(mode(passed, failed + 1), mode(*RUN.BASELINE["compact"])), 1)
        passed, failed = RUN.BASELINE["compact"]
        self.assertEqual(self.exit_code(mode(*RUN.BASELINE["ordinary"]), mode(passed - 1, failed)), 1)

    def test_every_script_fails_then_failed(self):
        broken = {"passed": 0, "failed": {"(the script)": "no module"}}
        self.assertEqual(self.exit_code(broken, broken), 1)
        self.assertEqual(self.exit_code(broken, broken, are_named=True), 1)
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(RUN.report({}, False), 1)

    def test_fails_in_the_compact_mode_alone_then_failed(self):
        self.assertEqual(self.exit_code(mode(10), mode(9, 1), are_named=True), 1)
        self.assertEqual(self.exit_code(mode(9, 1), mode(10), are_named=True), 0)
