"""The sub-commands of ``condenser``, one subject a module; each adds itself to the command."""
