"""The arithmetic of bench/scaling: python -m unittest discover -s bench"""

import importlib.machinery
import importlib.util
import pathlib
import sys
import unittest
from unittest import mock

PATH = pathlib.Path(__file__).with_name("scaling")
loader = importlib.machinery.SourceFileLoader("scaling", str(PATH))
scaling = importlib.util.module_from_spec(importlib.util.spec_from_loader("scaling", loader))
sys.dont_write_bytecode = True
loader.exec_module(scaling)

SLOPES = {name: (value, "made up") for name, value in {
    "gateway_us": 20.0, "gateway_open_us": 60.0, "link_us": 5.0, "delivery_us": 4.0, "redis_us": 20.0, "subscriber_us": 1.0, "redis_out": 300.0, "redis_in": 400.0,
    "sign_in_us": 100.0, "sign_in_commands": 12.0, "user_bytes": 1000.0, "quiet_us": 0.01}.items()}


class Scaling(unittest.TestCase):
    def options(self, *words):
        with mock.patch.object(sys, "argv", ["scaling", *words]):
            return scaling.options()

    def rows(self, connections, *words):
        rows = scaling.calculate(connections, self.options(*words), SLOPES)
        return {key: value for key, _, value, _, _ in rows}

    def test_slopes_are_known_then_the_rows_follow_by_hand(self):
        rows = self.rows(10e6, "--away", "0", "--members", "1", "--spare-nodes", "0")
        self.assertEqual((rows["nodes"], rows["each"]), (10, 1e6))
        self.assertAlmostEqual(rows["pairs"], 100_000)
        self.assertAlmostEqual(rows["rooms"], 20_000)
        # A room with one member is on one gateway.
        self.assertAlmostEqual(rows["reached"], 1.0)
        self.assertAlmostEqual(rows["cores"], (100_000 * 20 + 20_000 * 24) / 1e6 / 10)
        # 10 million sign-ins an hour.
        self.assertAlmostEqual(rows["directory"], 10e6 / 3600 * 100 / 1e6)
        self.assertAlmostEqual(rows["redis"], 10e6 / 3600 * 1e-4 + 0.1 + 2.0 + 0.4)
        self.assertAlmostEqual(rows["redis_memory"], 10e6 * (1000 + 20 * 195) / 1e9)
        self.assertEqual(rows["shards"], 5, "3.1 by memory, 4.6 by CPU")

    def test_ten_times_the_connections_then_messages_and_memory_are_ten_times_and_a_room_is_on_no_more_nodes_than_members(self):
        small, large = self.rows(10e6), self.rows(100e6)
        for key in ("pairs", "rooms", "sign_ins", "redis_memory", "directory"):
            self.assertAlmostEqual(large[key] / small[key], 10, msg=key)
        self.assertLess(small["reached"], 12)
        self.assertLess(large["reached"], 100)

    def test_everything_has_a_row_then_the_tables_have_as_many_cells_as_their_heads(self):
        text = scaling.tables(self.options(), SLOPES)
        for block in text.split("\n\n"):
            lines = [line for line in block.splitlines() if line.startswith("|")]
            self.assertLessEqual(len({line.count("|") for line in lines}), 1, block)
        self.assertIn("CPU of one Redis", text)


if __name__ == "__main__":
    unittest.main()
