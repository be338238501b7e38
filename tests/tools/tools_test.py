"""The guards see what they should see: each is run on a small project that breaks one rule."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(tool, root):
    done = subprocess.run([sys.executable, "-B", ROOT / "tools" / tool, root], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


class Project(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.write("rooms.txt", "# comment\nbase:\ntensor: base\nmodel: base tensor\nmodels/*: base model\n"
                                "models: base models/*\nheal: base\ncli: *\n")

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def rooms(self, path, include):
        self.write(path, f"// first line\n#include {include}\n")
        return run("check_rooms", self.root)

    def assert_allowed(self, path, include):
        status, said = self.rooms(path, include)
        self.assertEqual(status, 0, said)

    def assert_refused(self, path, include, why):
        status, said = self.rooms(path, include)
        self.assertEqual(status, 1, said)
        self.assertIn(f"{path}:2:", said)
        self.assertIn(why, said)


class Rooms(Project):
    def test_own_room_and_rooms_on_the_line(self):
        self.assert_allowed("lamina/model/a.cpp", '"lamina/model/a.h"')
        self.assert_allowed("lamina/model/a.cpp", '"lamina/base/error.h"')
        self.assert_allowed("lamina/model/impl/a.cpp", '"lamina/model/impl/b.h"')
        self.assert_allowed("lamina/models/registry.cpp", '"lamina/models/llama/llama.h"')
        self.assert_allowed("lamina/cli/main.cpp", '"lamina/models/llama/llama.h"')
        self.assert_allowed("lamina/base/a_test.cpp", '"tests/tiny.h"')

    def test_upward_and_sideways(self):
        self.assert_refused("lamina/base/a.h", '"lamina/model/a.h"', "room base may include no other room")

    def test_a_sibling_family(self):
        self.assert_refused("lamina/models/gpt2/a.cpp", '"lamina/models/llama/llama.h"', "room models/gpt2")

    def test_a_family_does_not_see_the_registry(self):
        self.assert_refused("lamina/models/llama/a.cpp", '"lamina/models/registry.h"', "room models/llama")

    def test_tests_obey_too(self):
        self.assert_refused("lamina/base/a_test.cpp", '"lamina/tensor/tensor.h"', "room base")

    def test_private_headers(self):
        self.assert_refused("lamina/model/a.cpp", '"lamina/tensor/impl/pch.h"', "impl/ is private")

    def test_unknown_room(self):
        self.assert_refused("lamina/attic/a.cpp", '"lamina/base/error.h"', "is in no room")

    def test_torch_has_one_door(self):
        self.assert_allowed("lamina/tensor/tensor.h", "<ATen/ATen.h>")
        self.assert_allowed("lamina/heal/a.cpp", "<torch/optim/adamw.h>")
        self.assert_refused("lamina/heal/b.cpp", "<torch/torch.h>", "torch comes in through")
        (self.root / "lamina/heal/b.cpp").unlink()
        self.assert_refused("lamina/base/a.cpp", "<ATen/ATen.h>", "torch comes in through")


class Words(Project):
    def test_clean(self):
        status, said = run("check_words", self.root)
        self.assertEqual(status, 0, said)

    def test_refused_words(self):
        for word in ("/wo" "rk/main", "TO" "DO: later", "FIX" "ME", "py" "pi.org", "this ses" "sion", "CLA" "UDE"):
            self.write("note.md", f"one\ntwo {word} three\n")
            status, said = run("check_words", self.root)
            self.assertEqual(status, 1, word)
            self.assertIn("note.md:2:", said)

    def test_words_inside_words_pass(self):
        self.write("note.md", "mastodon, network/main, possession\n")
        status, said = run("check_words", self.root)
        self.assertEqual(status, 0, said)


if __name__ == "__main__":
    unittest.main()
