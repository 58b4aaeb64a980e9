"""What `million --nodes` deals out, calculates and judges, without gateways: python -m unittest discover -s loadtest"""

import types
import unittest

import linked
import million_linked


def chosen(**more):
    return types.SimpleNamespace(**{"nodes": 4, "connections": 2000, "redis_us_max": None, **more})


def message(crossed, redis_us=15.0):
    return {"crossed": crossed, "messages": 10_000, "redis_us": redis_us}


class Linked(unittest.TestCase):
    def test_clients_are_dealt_out_then_pairs_are_on_one_node_or_on_two_as_they_are_called(self):
        for connections, members, nodes in ((2000, 20, 4), (1_000_000, 10_000, 4), (100, 2, 4), (50, 2, 3), (999, 9, 2), (1000, 10, 1)):
            sizes = million_linked.populations(connections, members, nodes)
            self.assertEqual(sum(sizes.values()), connections)
            self.assertGreaterEqual(sizes["room"], members)
            self.assertEqual(sizes["same"] // 2 % nodes, 0)
            if nodes > 1:
                self.assertNotEqual(sizes["across"] // 2 % nodes, 0)

    def test_too_few_clients_for_pairs_then_it_is_said(self):
        with self.assertRaisesRegex(million_linked.rig.Problem, "--connections 8"):
            million_linked.populations(8, 2, 4)

    def test_phase_took_more_than_time_alone_then_the_rest_is_the_messages(self):
        quiet, phase = {"seconds": 10.0, "cpu": 2.0}, {"seconds": 5.0, "cpu": 4.0}
        self.assertAlmostEqual(linked.per(phase, quiet, "cpu", 100), 0.03)
        self.assertIsNone(linked.per(phase, quiet, "other", 100))
        self.assertIsNone(linked.per(None, quiet, "cpu", 100))

    def test_figures_grow_then_the_difference_is_kept_by_name(self):
        before = {"at": 1.0, "calls": {"get": 3}, "phase": "a"}
        after = {"at": 3.0, "calls": {"get": 5, "set": 1}, "phase": "a"}
        self.assertEqual(linked.grown(before, after), {"at": 2.0, "calls": {"get": 2, "set": 1}, "seconds": 2.0})

    def test_message_comes_to_a_node_without_a_recipient_or_twice_to_one_then_the_run_fails(self):
        good = {"linked_same": message(0.0), "linked_across": message(1.0), "linked_room": message(3.0)}
        for name, crossed, problems in ((None, 0, 0), ("linked_across", 3.0, 1), ("linked_across", 0.0, 1), ("linked_room", 9.0, 1), ("linked_room", 2.0, 1),
                                        ("linked_room", 4.0, 0), ("linked_same", 3.0, 1)):
            figures = good | ({name: message(crossed)} if name else {}) | {"problems": []}
            million_linked.judge(chosen(), figures)
            self.assertEqual(len(figures["problems"]), problems, figures["problems"])

    def test_redis_takes_longer_than_it_may_or_nothing_was_measured_then_the_run_fails(self):
        figures = {"linked_same": message(0.0), "linked_across": message(1.0, 31.0), "linked_room": None, "problems": []}
        million_linked.judge(chosen(redis_us_max=20), figures)
        self.assertEqual(len(figures["problems"]), 2)
        self.assertIn("31.0 us of Redis", figures["problems"][1])


if __name__ == "__main__":
    unittest.main()
