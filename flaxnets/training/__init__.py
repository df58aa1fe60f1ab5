"""The training core: one pure step, compiled once for all devices, and the loop around it."""
