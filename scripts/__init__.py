# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person types, and the rooms behind it; nothing here imports tests."""
