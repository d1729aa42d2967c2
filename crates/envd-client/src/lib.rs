//! Client of the sandbox data plane: processes, terminals, filesystem and files.
