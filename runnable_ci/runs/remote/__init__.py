"""Runs in a registry: publish, pull, what it holds, and several versions of one run as one."""
