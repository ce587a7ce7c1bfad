# SPDX-License-Identifier: GPL-2.0-or-later
"""Check that a mistake in a scenario is reported with its file and line, and with exit code 2.  Prints TAP."""

from scripts.lib.command import main, no_options
from scripts.lib.system import TOP, Error, tried
from tests.kvmsim.scenario import Mistake, parse
from tests.tap import point, report

NAMELESS = '[good] B1: t\nsteps = cont\n'
GOOD = f'topic = host-compat\n{NAMELESS}'
# (line of the mistake, words of the message, file)
MISTAKES = [
    (1, 'expected a stanza', '# nothing'),
    (1, 'expected [NAME] BEHAVIOR...: TITLE', 'title = t'),
    (1, 'expected [NAME] BEHAVIOR...: TITLE', '[x]\nsteps = cont'),
    (1, 'expected [NAME] BEHAVIOR...: TITLE', '[x] B1:\nsteps = cont'),
    (2, 'expected one of B1, B2', GOOD.replace('B1', 'B99')),
    (1, 'to have topic', NAMELESS),
    (1, 'to have steps', '[x] B1: t\ntopic = host-compat'),
    *((4, words, GOOD + line) for words, line in (
        ('expected one of host-compat, ', 'topic = nobody'),
        ('found "color"', 'color = red'),
        ('expected steps once', 'steps = cas'),
        ('found "color"', 'smp = 2; color = red'),
        ('found "2; cas"', 'smp = 2; cas'),
        ('expected smp once', 'smp = 2; smp = 4'),
        ('expected one of power9, power10, power11, future, found "power12"', 'host = power12'),
        ('expected one of none, power9', 'mode = power8'),
        ('expected one of EPERM', 'caps-error = EWHATEVER'),
        ('expected ERRNO [once] [size N]', 'caps-error = EIO twice'),
        ('expected MODE ERRNO [poison] [vcpu ID]', 'refuse = power11 EINVAL sometimes'),
        ('expected raw, power6', 'device-tree = power12'),
        ('expected an earlier stanza', 'like = nobody'),
        ('expected capital letters', 'each = e one two'),
        ('expected 2 values', 'each = E F\n    one'),
        ('expected one of cont, stop', '    cas; ; cont'),
        ('expected one of running', '    state asleep'),
        ('expected more words', '    prints'),
        ('expected more words after get', '    get /machine'),
        ('expected nothing more after cont', '    cont now'),
        ('expected JSON', '    value {'),
        ('No closing quotation', "    prints 'one"),
        ('expected a number', '    ioctls cas == many'),
        ('expected a step after the prefix', '    patched:'),
    )),
    (1, 'expected [NAME] BEHAVIOR...: TITLE', 'topic = host-compat; smp = 2'),
    (2, 'expected topic once for all stanzas', f'topic = host-compat\n{GOOD}'),
    (4, 'expected a new name, found [good] again', GOOD + NAMELESS),
    (2, 'expected a new name, found [good] again', f'{GOOD}each = E one two'),
]
# (words of the message, arguments of kvmsim)
COMMANDS = [
    ('kvmsim: tests/kvmsim/README.md:1: expected ', ['run', 'tests/kvmsim/README.md']),
    ('kvmsim: nobody is not a topic: choose one of host-compat, ', ['suite', '--topic', 'nobody']),
    ('kvmsim: nobody is not a scenario: choose one of ', ['run', 'nobody']),
    ('kvmsim: other is not a readable file: give --qemu patched, ', ['run', 'limited-no-cas', '--qemu', 'other']),
]


def mistake(line, words, text):
    try:
        parse('FILE', text)
    except Mistake as e:
        if not str(e).startswith(f'FILE:{line}: ') or words not in str(e):
            raise Error(str(e)) from None
    else:
        raise Error('it is not reported')


def command(words, args):
    done = tried(['scripts/kvmsim', *args], cwd=TOP)
    if done.returncode != 2 or words not in done.stderr:
        raise Error(f'exit code {done.returncode}: {done.stderr or "no message"}')


def run():
    no_options(__doc__)
    rows = [*((words, mistake, line, words, text) for line, words, text in MISTAKES),
            *((words, command, words, args) for words, args in COMMANDS)]
    return report(point(*row) for row in rows)['failed'] > 0


if __name__ == '__main__':
    main(run)
