"""Reading the NWB 2 file format: opening, finding, tables, nwbinspector."""
