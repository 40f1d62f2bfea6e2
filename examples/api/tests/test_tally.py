import unittest

from app.tally import tally


class Tally(unittest.TestCase):
    def test_counts_words_without_regard_to_case(self) -> None:
        self.assertEqual(tally("Push push ship"), {"push": 2, "ship": 1})

    def test_nothing_has_no_words(self) -> None:
        self.assertEqual(tally(" \n"), {})
