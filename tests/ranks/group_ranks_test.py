#!/usr/bin/env python3
"""The process group on real processes: exact sums, gradients of the whole batch, and what is said when a rank goes away.

Usage: group_ranks_test.py PROGRAM TORCHRUN
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

from launch import Job, Process, free_port, marked, plain_environment, state_of

program, torchrun = sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
PATIENCE = 4  # the group's timeout in tests of faults


class Hold:
    """While it is there, ranks wait after their first step."""

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile()
        return self

    def __exit__(self, *_):
        self.file.close()

    @property
    def name(self):
        return self.file.name


class Together(unittest.TestCase):
    def fine(self, size, *case):
        with Job([program, *case], size) as job:
            self.assertTrue(job.wait(60), job.said())
            self.assertEqual([rank.status for rank in job.ranks], [0] * size, job.said())
            for rank in job.ranks:
                self.assertEqual(rank.stderr, "")
            for rank in job.ranks[1:]:
                self.assertEqual(rank.stdout, "")
            return job.ranks[0].stdout

    def test_calls_give_exact_values(self):
        for size in (1, 2, 4):
            self.assertEqual(self.fine(size, "calls"), "calls: ok\n")

    def test_gradients_are_those_of_the_whole_batch(self):
        for size, accumulate in ((1, 1), (2, 1), (2, 2), (4, 1), (4, 2)):
            for case, bound in (("gradients", 1e-6), ("gradients64", 1e-12)):
                text = self.fine(size, case, accumulate)
                differences = [float(word) for word in re.findall(r"difference (\S+)", text)]
                self.assertEqual(len(differences), 3)
                self.assertLessEqual(max(differences), bound)

    def test_a_gradient_in_several_pieces_is_summed_once(self):
        self.assertEqual(self.fine(4, "pieces"), "pieces: ok\n")

    def test_a_leaf_without_gradient_is_named(self):
        for size in (1, 2):
            with Job([program, "unread"], size) as job:
                self.assertTrue(job.wait(30), job.said())
                for rank in job.ranks:
                    self.assertNotEqual(rank.status, 0)
                    self.assertIn("model.never.weight got no gradient", rank.stderr)

    def test_ranks_that_differ_are_told_in_what(self):
        with Job([program, "disagree"], 3) as job:
            self.assertTrue(job.wait(30), job.said())
            for i, rank in enumerate(job.ranks):
                self.assertEqual(rank.status, 71)
                self.assertIn(f'lamina: rank {i}: rank 2 differs from rank 0 in options ("steps 5" against "steps 4")', rank.stderr)


class Faults(unittest.TestCase):
    """LAMINA_FAULT=rank:step:kind; all others must end in time, name the rank, and nobody may be left."""

    def end(self, size, fault, sentence, seconds, case=("steps",)):
        culprit = int(fault.split(":")[0])
        with Job([program, *case], size, LAMINA_FAULT=fault, LAMINA_SECONDS=PATIENCE) as job:
            job.wait_for("step 2\n")
            begin = time.monotonic()
            self.assertTrue(job.wait(seconds + 3), f"{fault}: {job.said()}")
            for i, rank in enumerate(job.ranks):
                if i == culprit:
                    continue
                self.assertEqual(rank.status, 71, f"{fault}: {job.said()}")
                self.assertLess(rank.ended - begin, seconds, f"{fault}: {job.said()}")
                self.assertRegex(rank.stderr, rf"\Alamina: rank {i}: {sentence}[^\n]*\n\Z", f"{fault}: {job.said()}")
                self.assertRegex(rank.stderr, r"step 3", f"{fault}: {job.said()}")
                self.assertNotIn("gloo", rank.stderr)
            self.assertEqual(job.left(), [])

    def test_killed(self):
        for size, culprit in ((2, 1), (4, 2)):
            self.end(size, f"{culprit}:3:kill", f"rank {culprit} was killed or ended", PATIENCE + 2)

    def test_the_rank_that_serves_the_store_is_killed(self):
        self.end(4, "0:3:kill", "rank 0 (is gone|was killed or ended)", PATIENCE + 2)

    def test_exits_in_the_middle(self):
        for kind in ("exit0", "exit3", "abort"):
            self.end(4, f"1:3:{kind}", "rank 1 was killed or ended", PATIENCE + 2)

    def test_throws(self):
        for kind, said in (("throw", "the disk is full"), ("foreign", "a foreign exception")):
            self.end(4, f"1:3:{kind}", f"rank 1 gave up: {said}", PATIENCE + 2)
        self.end(2, "0:3:throw", "rank 0 gave up: the disk is full", PATIENCE + 2)

    def test_stopped(self):
        for size, culprit in ((2, 0), (4, 2)):
            self.end(size, f"{culprit}:3:stop", f"rank {culprit} stopped answering after", PATIENCE + 2)

    def test_hangs(self):
        self.end(4, "2:3:hang", "rank 2 lives but is still at step 3 after", PATIENCE + 2)

    def test_a_rank_that_works_alone_is_waited_for(self):
        with Job([program, "solo", 5], 3, LAMINA_SECONDS=2) as job:
            self.assertTrue(job.wait(20), job.said())
            self.assertEqual([rank.status for rank in job.ranks], [0, 0, 0], job.said())
            self.assertIn("waited for 3", job.ranks[0].stdout)

    def test_others_go_away_meanwhile(self):
        for culprit in (0, 2):
            self.end(3, f"{culprit}:3:kill", rf"rank {culprit} (is gone|was killed or ended)", PATIENCE + 2, ("solo", 0))
            self.end(3, f"{culprit}:3:stop", f"rank {culprit} stopped answering", PATIENCE + 2, ("solo", 0))

    def test_returns_too_early(self):
        self.end(4, "1:3:early", "the ranks wait for each other at different places after .*rank 0 at step 3, rank 1 at the end",
                 PATIENCE + 2)

    def test_asks_for_something_else(self):
        self.end(2, "1:3:other", "rank . gave up: the ranks asked each other for different things|"
                 "the ranks asked each other for different things", PATIENCE + 2)


class StartUp(unittest.TestCase):
    def refused(self, sentence, **variables):
        rank = Process([program, "steps"], plain_environment(LAMINA_SECONDS=2, **variables))
        rank.process.wait(20)
        rank.poll()
        self.assertNotIn(rank.status, (0, None))
        self.assertRegex(rank.stderr, rf"\Alamina: [^\n]*{sentence}[^\n]*\n\Z")

    def test_no_variables_is_one_process(self):
        rank = Process([program, "steps"], plain_environment())
        self.assertEqual(rank.process.wait(20), 0)
        self.assertIn("done on 1 ranks", rank.stdout)

    def test_half_set_or_garbage(self):
        whole = dict(RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
        for name in whole:
            self.refused(f"{name} is not set in the environment", **{k: v for k, v in whole.items() if k != name})
        self.refused("RANK, WORLD_SIZE, MASTER_PORT are not set", MASTER_ADDR="localhost")
        for name, value in (("RANK", "one"), ("RANK", "2"), ("RANK", "-1"), ("RANK", "1x"), ("WORLD_SIZE", "0"),
                            ("WORLD_SIZE", "99999999999999"), ("MASTER_PORT", "70000"), ("MASTER_PORT", "http"),
                            ("LOCAL_RANK", "x"), ("LOCAL_WORLD_SIZE", "7")):
            self.refused(f"the environment's {name} is .*{re.escape(value)}", **{**whole, name: value})

    def test_no_store(self):
        self.refused(r"rank 1: no store answers at 127\.0\.0\.1:\d+ within 2 s", RANK=1, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1",
                     MASTER_PORT=free_port())

    def test_a_peer_never_arrives(self):
        with Job([program, "steps"], 4, only=(0, 2), LAMINA_SECONDS=2) as job:
            self.assertTrue(job.wait(6), job.said())
            self.assertTrue(any("ranks 1, 3 did not arrive within 2 s" in rank.stderr for rank in job.ranks), job.said())
            for rank in job.ranks:
                self.assertEqual(rank.status, 71)

    def test_two_jobs_do_not_meet(self):
        with Hold() as hold, Job([program, "steps"], 2, LAMINA_HOLD=hold.name) as first:
            first.wait_for("step 1\n")
            with Job([program, "steps"], 2) as other, Job([program, "steps"], 2, port=first.port, LAMINA_SECONDS=3) as same:
                self.assertTrue(same.wait(30), same.said())
                self.assertIn("does another job use it", same.ranks[0].stderr)
                self.assertIn("already here as this rank", same.ranks[1].stderr)
                self.assertTrue(other.wait(30), other.said())
                self.assertEqual([rank.status for rank in other.ranks], [0, 0], other.said())
            hold.file.close()
            self.assertTrue(first.wait(30), first.said())
            self.assertEqual([rank.status for rank in first.ranks], [0, 0], first.said())

    def test_the_store_of_one_machine_is_not_reachable_from_others(self):
        with Hold() as hold, Job([program, "steps"], 2, LAMINA_HOLD=hold.name) as job:
            job.wait_for("step 1\n")
            ours = self.sockets(job)
            listening = [line.split()[1] for name in ("tcp", "tcp6") for line in pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:]
                         if line.split()[3] == "0A" and line.split()[9] in ours]
            self.assertIn(f"0100007F:{job.port:04X}", listening)
            for address in listening:
                self.assertTrue(address.startswith("0100007F:"), address)

    @staticmethod
    def sockets(job):
        inodes = set()
        for rank in job.ranks:
            for descriptor in pathlib.Path(f"/proc/{rank.pid}/fd").iterdir():
                target = os.readlink(descriptor)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
        return inodes


@unittest.skipUnless(torchrun.exists(), f"there is no {torchrun}; tools/setup makes it")
class Torchrun(unittest.TestCase):
    def launch(self, *options, size=2, **extra):
        self.mark = f"LAMINA_MARK={uuid.uuid4()}"
        extra["LAMINA_MARK"] = self.mark.partition("=")[2]
        return Process([torchrun, "--no-python", "--standalone", "--nproc-per-node", size, *options, program, "steps"],
                       plain_environment(**extra))

    def tearDown(self):
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)

    def end(self, agent, seconds):
        try:
            agent.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.fail(agent.said())
        agent.poll()
        return agent

    def gone(self, seconds):
        end = time.monotonic() + seconds
        while marked(self.mark) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(marked(self.mark), [])

    def wait_for(self, agent, text, seconds=60):
        end = time.monotonic() + seconds
        while text not in agent.stdout and time.monotonic() < end and agent.poll() is None:
            time.sleep(0.05)
        self.assertIn(text, agent.stdout, agent.said())

    def test_the_line_of_the_readme(self):
        agent = self.end(self.launch(), 60)
        self.assertEqual(agent.status, 0, agent.said())
        self.assertEqual(agent.stdout.count("done on 2 ranks"), 1, agent.said())
        self.assertNotIn("lamina", agent.stderr)

    def test_a_restart_on_the_same_store(self):
        agent = self.end(self.launch("--max-restarts", 1, LAMINA_FAULT="1:3:exit3", LAMINA_SECONDS=20), 90)
        self.assertEqual(agent.status, 0, agent.said())
        self.assertIn("done on 2 ranks, attempt 1", agent.stdout)
        self.gone(2)

    def test_a_sentence_reaches_the_table(self):
        agent = self.end(self.launch(LAMINA_FAULT="1:3:throw", LAMINA_SECONDS=20), 60)
        self.assertEqual(agent.status, 1)
        self.assertRegex(agent.stderr.partition("Root Cause")[2], r"traceback : .*rank 1.*the disk is full", agent.said())
        self.gone(2)

    def test_a_killed_rank(self):
        agent = self.end(self.launch(LAMINA_FAULT="1:3:kill", LAMINA_SECONDS=20), 60)
        self.assertEqual(agent.status, 1)
        self.assertIn("SIGKILL", agent.stderr)
        self.gone(2)

    def test_a_stopped_rank(self):
        agent = self.launch(LAMINA_FAULT="1:3:stop", LAMINA_SECONDS=PATIENCE)
        self.wait_for(agent, "step 2\n")
        begin = time.monotonic()
        self.end(agent, 60)
        self.assertEqual(agent.status, 1)
        self.assertIn("rank 1 stopped answering", agent.stderr, agent.said())
        self.assertLess(time.monotonic() - begin, 25, "its neighbour ends it, before torchrun does after 30 s")
        self.gone(2)

    def test_a_killed_agent_leaves_no_worker(self):
        with Hold() as hold:
            agent = self.launch(size=3, LAMINA_HOLD=hold.name)
            self.wait_for(agent, "step 1\n")
            self.assertEqual(len(marked(self.mark)), 4)
            os.kill(agent.pid, signal.SIGKILL)
            agent.process.wait()
            self.gone(3)

    def test_a_terminated_agent_leaves_no_worker(self):
        with Hold() as hold:
            agent = self.launch(LAMINA_HOLD=hold.name)
            self.wait_for(agent, "step 1\n")
            os.kill(agent.pid, signal.SIGTERM)
            self.end(agent, 40)
            self.assertNotEqual(agent.status, 0)
            self.gone(2)

    def test_two_standalone_jobs_at_once(self):
        first = self.launch()
        mark = self.mark
        second = self.launch()
        for agent in (first, second):
            self.assertEqual(self.end(agent, 90).status, 0, agent.said())
        self.assertEqual(marked(mark), [])


if __name__ == "__main__":
    unittest.main(warnings="ignore")
