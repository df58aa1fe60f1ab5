"""What a run needs and how fast it could be on devices that are not there, found by compiling its step for them."""
