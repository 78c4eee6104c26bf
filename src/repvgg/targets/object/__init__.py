"""An object file and a C header: the engine's code for one kind of processor, for programs without Python."""
