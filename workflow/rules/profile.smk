"""Stop if a workflow profile, or a name in it, is not there: Snakemake would run without, and not say so."""

from colatent.profile import Known, check_profile


def file_of_profile(name):
    """Return the file of a workflow profile as Snakemake finds it, or None if none is asked for."""
    from snakemake.cli import get_profile_dir

    path = Path(name or "default")
    places = (path, Path("profiles", path), Path(workflow.basedir, "profiles", path))
    place = next((place for place in places if place.exists()), None)
    if name and place is None:
        known = Path(workflow.basedir, "workflow/profiles").glob("*/config.yaml")
        names = ", ".join(sorted(str(file.parent) for file in known))
        raise InputError(f"there is no workflow profile {name!r}; those here: {names}")
    return place and get_profile_dir(str(place))[1]


def refuse_mistyped_profile(arguments):
    """Stop if these arguments of Snakemake ask for a workflow profile that is mistyped, or holds what is."""
    import yte
    from snakemake.cli import get_argument_parser

    # Snakemake's own parser: it knows abbreviated options, and those of plugins
    parser = get_argument_parser()
    name = parser.parse_known_args(arguments)[0].workflow_profile
    if name == "none":
        return
    try:
        file = file_of_profile(name)
        # this file, of a Snakefile that another one uses: the profile may name that one's rules
        if file is None or len(workflow.included_stack) > 2:
            return
        with open(file) as stream:
            content = yte.process_yaml(stream, require_use_yte=True)
        known = Known(
            options={
                key
                for action in parser._actions
                for key in parser.get_possible_config_keys(action)
            },
            rules=[rule.name for rule in workflow.rules],
            groups=[QUICK_FITS],
        )
        check_profile(str(file), content, known)
    except InputError as error:
        sys.exit("\n".join(f"colatent: {line}" for line in str(error).splitlines()))


if is_main_run():
    refuse_mistyped_profile(sys.argv[1:])
