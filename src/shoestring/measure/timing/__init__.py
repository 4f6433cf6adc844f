"""How long it takes: what machines do in a second, measured or from a sheet, and rooflines."""
