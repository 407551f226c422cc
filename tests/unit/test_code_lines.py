"""The counter of `make check` counts code, and no docstring, comment or blank line."""

from tests.code_lines import code_lines

MODULE = '''"""A module
of two lines."""

import os  # code with a comment

# A comment.
VALUE = """text that is
no docstring"""


class Thing:
    """A class."""

    def method(self):
        """Return nothing.

        In two paragraphs.
        """
        return os.path.join(
            "a",
        )
'''


def test_docstrings_comments_and_blank_lines_do_not_count():
    assert code_lines(MODULE) == len(
        ["import", "VALUE =", "no docstring", "class", "def", "return", '"a",', ")"]
    )


def test_a_docstring_alone_is_no_code():
    assert code_lines('"""Nothing else."""\n') == 0
    assert code_lines("") == 0
