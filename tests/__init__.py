# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests; run them from the top directory, such as python3 -m tests.hcall.check."""
