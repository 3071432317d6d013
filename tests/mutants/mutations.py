"""The mutations: a file, a text that occurs in it once, what it becomes, and the tests of which at least one must fail."""

from __future__ import annotations

from dataclasses import dataclass

PACKAGE = "localdiff_cli"


@dataclass(frozen=True)
class Mutation:
    """``old`` becomes ``new`` in ``file`` (below the package); one of ``tests`` (``file::function`` below ``tests``) must fail."""

    subject: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> str:
        """The file, from the root of the project."""
        return f"{PACKAGE}/{self.file}"


RECIPE = "diffusion/test_recipe.py::test_local_diffusion_is_the_recipe"
PLAIN = "diffusion/test_recipe.py::test_plain_sampling_is_the_recipe"
FUSION = "diffusion/test_fusion.py::"
SAMPLERS = "diffusion/test_samplers.py::"
THRESHOLD = "ood/test_threshold.py::"
SIDE = "ood/test_through_plane.py::"
INTENSITY = "volumes/test_intensity.py::"
GEOMETRY = "volumes/test_geometry.py::"
CLAIMS = "batch/test_claims.py::"
ENGINE = "batch/test_engine.py::"
RUNS = "batch/test_execution.py::"
DRAWN = "tasks/test_translation.py::"
TRANSLATE = "commands/test_translate.py::"
STATISTICS = "evaluation/cohort/test_statistics.py::"
COUNTED = "evaluation/metrics/test_misdiagnosis.py::"
MASKS = "volumes/test_masks.py::"
PLACEMENT = "volumes/test_placement.py::"
EVALUATED = "tasks/test_evaluation.py::"


def _of(subject: str, file: str, *mutations: tuple[str, str, tuple[str, ...]]) -> tuple[Mutation, ...]:
    return tuple(Mutation(subject, file, old, new, tests) for old, new, tests in mutations)


DIFFUSION = (
    *_of(
        "fusion", "diffusion/fusion.py",
        ("mixed = weight * ood + (1 - weight) * ind", "mixed = weight * ood + weight * ind", (RECIPE,)),
        ("ood, ind = both.chunk(2)", "ind, ood = both.chunk(2)", (RECIPE,)),
        ("None if state.x0 is None else blend(state.x0), state.t_of_x0)", "None, None)", (RECIPE,)),
        ("fusion = steps - settings.fusion_step", "fusion = steps - settings.fusion_step // 2", (RECIPE,)),
        ("State(x_T), 0, settings.branch_step)", "State(x_T), 0, 0)", (RECIPE,)),
        ("return self.map * self.mask if soft", "return self.map if soft", (FUSION + "test_the_map_outside_the_mask_is_not_blended",)),
        ('settings.ood_branch == "network" and not settings.soft', "not settings.soft",
         ("diffusion/test_recipe.py::test_a_copy_of_every_pixel_is_not_the_plain_sampler",)),
        ("alike = process.expert is None and", "alike =", (FUSION + "test_with_an_expert_a_mask_of_every_pixel_is_not_the_plain_sampler",)),
        ("fused.x0 is not None and shows(fused.x0)", "fused.x0 is not None and not shows(fused.x0)",
         (FUSION + "test_guided_timing_waits_as_long_as_the_classifier_says",)),
        ("return process.walk(joint, fused, number, len(process.pairs)).x", "return process.walk(joint, fused, fusion, len(process.pairs)).x",
         (FUSION + "test_guided_timing_waits_as_long_as_the_classifier_says",)),
    ),
    *_of("step noise", "diffusion/fusion.py", ("return torch.cat([noise, noise])", "return torch.cat([noise, noise.flip(-1)])", (RECIPE,))),
    *_of("step noise", "diffusion/samplers.py", ("lambda: noise_of(number)", "lambda: noise_of(0)", (PLAIN,))),
    *_of(
        "step noise", "diffusion/noise.py",
        ("/{place}/{step}", "/{place}/0", ("diffusion/test_noise.py::test_every_part_of_the_key_matters",)),
        ('place = "all" if self.shared else str(slice_number)', 'place = "all"',
         ("diffusion/test_noise.py::test_shared_noise_is_the_same_in_all_slices_and_independent_noise_is_not",)),
        ("return torch.stack([self.field(step, k, shape) for k in slices])", "return torch.stack([self.field(step, 0, shape) for k in slices])",
         ("diffusion/test_noise.py::test_a_batch_is_its_slices",)),
    ),
    *_of(
        "λ", "diffusion/branching.py",
        (".clamp(min=context)", ".clamp(min=1 - context)", (FUSION + "test_conditions_add_up_to_the_whole_when_no_context_is_left",)),
        ("return condition * (1 - ood_mask", "return condition * (ood_mask", (RECIPE,)),
    ),
    *_of(
        "branches", "diffusion/branching.py",
        ("return condition * ood_mask", "return condition", (RECIPE,)),
        ("return torch.where(ood_mask, emphasised(x0_ood, x0_ind, emphasis), space.background)", "return emphasised(x0_ood, x0_ind, emphasis)",
         (FUSION + "test_the_branches_see_their_own_condition_and_the_same_noise", RECIPE)),
        ("(emphasis - 1) * (x0_ood - x0_ind)", "emphasis * (x0_ood - x0_ind)", ("diffusion/test_recipe.py::test_an_emphasised_branch_is_the_recipe",)),
        ("(drawn + copied) / 2", "(drawn + 3 * copied) / 4", (RECIPE,)),
        ("torch.cat([copied, ind(x.chunk(2)[1], t)])", "torch.cat([copied, ind(x.chunk(2)[0], t)])", (RECIPE,)),
        ("inside = space.encode(masked) if told is None", "inside = space.encode(condition) if told is None", (RECIPE,)),
        ("outside = space.encode(ind_condition(condition, on_condition, context))", "outside = space.encode(condition)", (RECIPE,)),
        ("State(torch.cat([state.x, state.x])", "State(torch.cat([state.x, -state.x])", (RECIPE,)),
        ("max(0, int(places[0]) - margin)", "max(0, int(places[0]))", (FUSION + "test_the_crop_holds_the_mask_with_its_margin_on_multiples",)),
        ("ood = denoiser(expert or model,", "ood = denoiser(model,", ("diffusion/test_recipe.py::test_with_an_expert_the_ood_branch_is_the_experts",)),
    ),
    *_of("branches", "diffusion/space.py", ("return 2 * image - 1", "return image", (RECIPE,))),
    *_of(
        "samplers", "diffusion/samplers.py",
        ("estimate = x0 + (x0 - state.x0) / (2 * r)", "estimate = x0 + (x0 - state.x0) / r",
         (SAMPLERS + "test_dpm_solver_is_of_second_order_where_ddim_is_of_first",)),
        ("r = (_log_snr(now) - _log_snr(schedule.alpha_bar(state.t_of_x0))) / h", "r = h / (_log_snr(now) - _log_snr(schedule.alpha_bar(state.t_of_x0)))",
         (PLAIN,)),
        ("math.expm1(-h)", "math.expm1(-h / 2)", (PLAIN,)),
        ("sigma = math.sqrt((1 - then) / (1 - now) * (1 - ratio))", "sigma = math.sqrt(1 - ratio)", (PLAIN,)),
        ("math.sqrt(ratio) * (1 - then) * state.x", "ratio * (1 - then) * state.x", (PLAIN,)),
        ("sigma = eta * math.sqrt(", "sigma = eta**2 * (", (SAMPLERS + "test_ddim_with_eta_one_is_the_ancestral_step",)),
        ("1 - then - sigma**2, 0.0", "1 - then, 0.0", (SAMPLERS + "test_ddim_with_eta_one_is_the_ancestral_step",)),
        ("epsilon = (state.x - math.sqrt(now) * x0)", "epsilon = (state.x - now * x0)", (PLAIN,)),
        ("return State(step(schedule, state, x0, pair, lambda", "return State(step(schedule, State(state.x), x0, pair, lambda", (PLAIN,)),
    ),
    *_of("clip", "diffusion/samplers.py", ("x0.clamp(-1, 1) if clip else x0", "x0",
                                          (SAMPLERS + "test_the_estimate_is_clipped_to_the_range_of_the_network",))),
    *_of(
        "schedule", "diffusion/schedule.py",
        ("np.linspace(num_train_timesteps - 1, CLEAN, steps + 1)", "np.linspace(num_train_timesteps - 2, CLEAN, steps + 1)",
         ("diffusion/test_schedule.py::test_pairs_start_at_pure_noise_end_clean_and_join_up",)),
        ("return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise", "return alpha_bar.sqrt() * x0 + (1 - alpha_bar) * noise",
         ("diffusion/test_schedule.py::test_the_training_target_gives_back_x0",)),
        ("return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0", "return alpha_bar.sqrt() * noise + (1 - alpha_bar).sqrt() * x0",
         ("diffusion/test_schedule.py::test_the_training_target_gives_back_x0",)),
        ("return (x_t - sigma * prediction) / signal", "return x_t - sigma * prediction",
         (SAMPLERS + "test_the_mean_is_within_a_tenth_of_a_percent_at_ten_steps",)),
    ),
)  # fmt: skip

OOD = (
    *_of(
        "thresholds", "ood/threshold.py",
        (".clamp(0, 1).square()", ".clamp(0, 1)", (THRESHOLD + "test_probability_is_the_squared_ramp_of_the_method",)),
        ("(anomaly_map - (tau_a - sigma_a))", "(anomaly_map - tau_a)", (THRESHOLD + "test_probability_is_the_squared_ramp_of_the_method",)),
        ("np.interp(1 - false_alarm,", "np.interp(false_alarm,",
         (THRESHOLD + "test_the_share_of_healthy_pixels_above_the_threshold_is_the_false_alarm_rate",)),
    ),
    *_of(
        "masks", "ood/threshold.py",
        ("(ood_map >= threshold) & brain", "(ood_map > threshold) & brain", (THRESHOLD + "test_threshold_is_inclusive_and_slices_do_not_mix",)),
        ("(ood_map >= threshold) & brain", "(ood_map >= threshold)", (THRESHOLD + "test_a_map_beside_the_brain_does_not_grow_into_it",)),
        ("torch.from_numpy(mask).to(brain.device) & brain", "torch.from_numpy(mask).to(brain.device)",
         (THRESHOLD + "test_mask_never_leaves_the_brain",)),
        ("opened = ndimage.binary_opening(inside, opening)", "opened = inside",
         (THRESHOLD + "test_opening_removes_specks_and_keeps_blobs",)),
        ("_disc(open_mm, spacing), _disc(dilate_mm, spacing)", "_disc(open_mm, spacing), _disc(dilate_mm, (1.0, 1.0))",
         (THRESHOLD + "test_dilation_is_a_disc_in_millimetres_on_an_anisotropic_grid",)),
        ("inside & (ood_map >= peak)", "(ood_map >= peak)", (THRESHOLD + "test_what_reaches_the_peak_outside_the_brain_keeps_nothing",)),
        ("np.ones((1, 1, 3, 3), bool)", "np.ones((3, 1, 3, 3), bool)",
         (THRESHOLD + "test_a_region_stays_only_where_the_map_reaches_the_peak_in_the_same_slice",)),
    ),
    *_of(
        "masks", "ood/through_plane.py",
        ("for stack in (ood_map, brain))", "for stack in (ood_map, np.ones_like(brain)))",
         (SIDE + "test_what_is_the_same_in_all_slices_stays_to_the_ends_of_the_volume_and_the_rim_of_the_brain",)),
        ("REACH = 3.0", "REACH = 2.0", (SIDE + "test_the_average_has_the_weights_of_a_gaussian_and_ends_after_three_standard_deviations",)),
        ("(average >= peak)", "(spread >= peak)", (SIDE + "test_a_find_of_one_slice_alone_stays_as_a_suspicion",)),
        ("np.ones((3, 3, 3), bool)", "np.array([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))], bool)",
         (SIDE + "test_a_region_is_sure_as_a_whole_where_its_average_reaches_the_peak_in_another_slice",)),
        ("SHOWN = 0.5", "SHOWN = 0.6", (SIDE + "test_a_slice_that_shows_half_of_its_part_keeps_its_own_outline",)),
    ),
    *_of("masks", "ood/detector.py", ("self.tau_a, self.calibration.sigma_a) * brain", "self.tau_a, self.calibration.sigma_a)",
                                     ("ood/test_detector.py::test_map_is_zero_outside_the_brain_even_where_zero_distance_has_a_probability",))),
    *_of(
        "PatchCore", "ood/patchcore.py",
        ("weight = 1 - torch.exp(", "weight = torch.exp(", ("ood/test_patchcore.py::test_slice_score_follows_equation_7",)),
        ("self.embeddings.T, alpha=-2)", "self.embeddings.T, alpha=-1)", ("ood/test_patchcore.py::test_search_is_exact",
                                                             "ood/test_patchcore.py::test_the_closest_entry_is_the_first_of_the_nearest")),
    ),
)  # fmt: skip

VOLUMES = (
    *_of(
        "clip", "volumes/intensity.py",
        ("np.clip((z - np.float32(low)) / np.float32(high - low), 0, 1)", "np.clip((z - np.float32(low)) / np.float32(high - low), 0, 2)",
         (INTENSITY + "test_scale_is_the_documented_formula",)),
        ("(z < self.window[0]) | (z > self.window[1])", "(z < self.window[0]) & (z > self.window[1])",
         (INTENSITY + "test_clipped_share_counts_what_the_window_cuts",)),
    ),
    *_of(
        "units", "volumes/intensity.py",
        ("MAD_TO_SD = 1.4826", "MAD_TO_SD = 1.0", (INTENSITY + "test_scale_is_the_documented_formula",)),
        ("((image * (high - low) + low) * self.sd + self.median)", "((image * (high - low)) * self.sd + self.median)",
         (INTENSITY + "test_denormalise_undoes_normalise_inside_the_window",)),
    ),
    *_of(
        "units", "volumes/formats/nifti/read.py",
        ("MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0), _raw", "1.0, _raw",
         ("volumes/test_reader.py::test_spacing_is_in_mm_whatever_the_files_unit",)),
    ),
    *_of(
        "units", "volumes/writer.py",
        ("(image - inter) / slope", "image / slope", ("volumes/test_writer.py::test_stored_scale_gives_real_units_back",)),
        ("np.clip(np.rint(values.astype(np.float64)),", "np.clip(np.floor(values.astype(np.float64)),",
         ("volumes/test_writer.py::test_integers_are_rounded_and_never_wrap_around",)),
    ),
    *_of("scale of a series", "volumes/formats/dicom/header.py", ("Scale(intercept - offset * sd, sd,", "Scale(intercept + offset * sd, sd,",
                                       ("commands/test_dicom.py::test_a_derived_series_names_the_scale_of_its_translation",))),
    *_of("bias", "volumes/prepare.py", ("image / self.bias.slice(k, image.shape)", "image * self.bias.slice(k, image.shape)",
                                       ("volumes/test_prepare.py::test_bias_is_divided_out",))),
    *_of(
        "affine", "volumes/geometry.py",
        ("return self.shape[0] - 1 - k if self.flips[0] else k", "return k", (GEOMETRY + "test_slices_go_to_canonical_and_back",
                                                                           "volumes/test_reader.py::test_slices_are_the_same_in_every_orientation")),
        ('CANONICAL = ("S", "P", "L")', 'CANONICAL = ("S", "P", "R")', (GEOMETRY + "test_canonical_runs_to_superior_posterior_left",)),
        ("bool(orientation[stored_axis, 1] != direction)", "bool(orientation[stored_axis, 1] == direction)",
         (GEOMETRY + "test_canonical_runs_to_superior_posterior_left",)),
        ("spacing = np.linalg.norm(affine[:3, :3], axis=0)", "spacing = np.abs(np.diag(affine[:3, :3]))",
         (GEOMETRY + "test_oblique_volume_takes_the_nearest_axes_and_its_own_spacing",)),
    ),
    *_of(
        "resampling", "volumes/geometry.py",
        ("near = 1.5 * x**3 - 2.5 * x**2 + 1", "near = 2.0 * x**3 - 3.0 * x**2 + 1",
         (GEOMETRY + "test_smooth_image_survives_the_way_to_the_network_and_back", GEOMETRY + "test_constant_stays_constant_in_the_interior")),
        ("width = max(step, 1.0)", "width = 1.0", (GEOMETRY + "test_nothing_aliases_on_a_coarser_grid",)),
        ("(np.arange(self.native_shape[axis]) - self.origin[axis]) * step", "(np.arange(self.native_shape[axis]) + self.origin[axis]) * step",
         (GEOMETRY + "test_smooth_image_survives_the_way_to_the_network_and_back",)),
        ("needed = int(np.ceil((high - low + 3)", "needed = int(np.ceil((high - low - 13)",
         (GEOMETRY + "test_grid_grows_to_the_next_multiple_for_a_larger_brain",)),
        ("np.round((low + high) / 2 - (n - 1)", "np.round(low - (n - 1)", (GEOMETRY + "test_grid_is_centred_on_the_brain",)),
    ),
)  # fmt: skip

TASKS = (
    *_of(
        "masks", "tasks/slices.py",
        ("nearest = distance_transform_edt(~inside,", "nearest = distance_transform_edt(inside,",
         ("tasks/test_slices.py::test_at_other_spacings_the_rim_is_neither_dark_nor_bright",
          "tasks/test_slices.py::test_at_equal_spacing_the_way_there_and_back_changes_nothing")),
        ("cubic=False) >= 0.5) & brain", "cubic=False) >= 0.05) & brain", ("tasks/test_slices.py::test_a_mask_comes_back_as_large_as_it_was",)),
    ),
    *_of(
        "sampling", "tasks/sampling.py",
        ("((x0 + 1) / 2).clamp(0, 1) * chunk.brain", "((x0 + 1) / 2).clamp(0, 1)", (DRAWN + "test_results_are_images_in_range_and_zero_outside_the_brain",)),
        ("mean = samples.mean(dim=0)", "mean = samples[0]", (DRAWN + "test_the_mean_and_spread_are_those_of_the_samples",)),
        ("NoiseKey(self.settings.seed, number,", "NoiseKey(self.settings.seed, 0,", (DRAWN + "test_the_mean_and_spread_are_those_of_the_samples",)),
    ),
    *_of(
        "translation", "tasks/translation.py",
        ("np.where(mask, FUSED if fused else OOD, IND)", "np.where(mask, OOD if fused else FUSED, IND)",
         (DRAWN + "test_source_labels_say_which_process_made_each_voxel",)),
    ),
    *_of(
        "units", "tasks/translation.py",
        ("scale.sd * (scale.window[1] - scale.window[0])", "scale.sd", (TRANSLATE + "test_the_spread_is_in_the_units_of_the_reference",)),
        ("(max(abs(low), abs(high)) / INT16_STEPS, 0.0)", "(max(abs(low), abs(high)) / (2 * INT16_STEPS), 0.0)", (TRANSLATE + "test_int16_keeps_the_values_within_its_step",)),
    ),
    *_of("--match", "recipes/translate.py", ("replace(prepare, window=bundle.target.window), match", "prepare, match",
                                             (TRANSLATE + "test_match_gives_the_units_of_the_reference",))),
    *_of(
        "settings hash", "tasks/translation.py",
        ('"Sample": asdict(self.sample),', "", (TRANSLATE + "test_a_second_run_does_nothing_and_changed_settings_are_an_error",)),
        ('"BundleHash": self.bundle.hash,', "", (TRANSLATE + "test_a_folder_in_gives_a_folder_out_with_sidecars_and_verdicts",)),
        ('"Match": self.match,', "", (TRANSLATE + "test_another_reference_is_another_setting",)),
        ('"Prepare": prepare_account(self.prepare),', "", (TRANSLATE + "test_another_way_to_prepare_is_another_setting",)),
    ),
)  # fmt: skip

BATCH = (
    *_of(
        "settings hash", "batch/volume.py",
        ("sidecar.get(\"Settings\") != json.loads(json.dumps(work.settings)) or ", "",
         (ENGINE + "test_other_settings_or_another_input_are_refused_and_named",)),
        (" or not sources(work, item).told_by(sidecar)", "",
         (ENGINE + "test_other_settings_or_another_input_are_refused_and_named",)),
        ("tuple(file_hash(path) for path in work.companions(item))", "()", (ENGINE + "test_a_changed_companion_is_another_input",)),
        ("path.exists() and hashes.get(path.name) == file_hash(path)", "path.exists()",
         (ENGINE + "test_a_volume_with_a_damaged_or_missing_output_is_made_again",)),
        ("            _check_unchanged(item, made_of, sources(self.work, item))\n", "",
         (ENGINE + "test_an_input_replaced_while_it_is_worked_on_is_done_again_and_described_by_what_it_was_made_of",)),
    ),
    *_of(
        "claims", "batch/volume.py",
        ("self.claims.leave(claim) if half else self.claims.release(claim)", "self.claims.release(claim)",
         (RUNS + "test_half_made_outputs_of_a_dead_process_and_a_first_try_that_fails_do_not_hang_the_run",)),
        ("attempt < MAX_ATTEMPTS", "attempt <= MAX_ATTEMPTS", (ENGINE + "test_a_volume_is_tried_twice_and_no_more",)),
        ("overwrite=self.recorded.overwrite, ours=claim.inherited)", "overwrite=self.recorded.overwrite)",
         (RUNS + "test_a_volume_of_a_dead_run_is_taken_over_with_its_half_made_outputs",)),
    ),
    *_of(
        "claims", "batch/claims.py",
        ("return _started(owner.pid) == owner.started", "return True", (CLAIMS + "test_another_process_with_the_same_number_is_not_the_owner",)),
        ("> MISSED_HEARTBEATS * self.heartbeat", "> 0", (CLAIMS + "test_another_hosts_claim_holds_for_three_beats_without_a_sign",)),
        ('held.get("Left") is True or ', "",
         (CLAIMS + "test_a_claim_that_was_left_is_inherited_at_once_by_anybody_its_former_owner_included",)),
        ('            if (_read(claim.path) or {}).get("Token") == claim.token:\n                claim.path.unlink', "            if True:\n                claim.path.unlink",
         (CLAIMS + "test_a_claim_taken_over_by_another_is_not_removed_by_its_former_owner",)),
        ("            if held is not None and not self._is_stale(key, path, held):\n                return None\n", "",
         (CLAIMS + "test_a_claim_excludes_others_until_it_is_given_back",)),
    ),
    *_of(
        "settings hash", "bundle/schema.py",
        ('(*FUNCTIONAL_KEYS, "files")', "FUNCTIONAL_KEYS", ("bundle/test_bundle.py::test_the_hash_changes_with_the_weights",)),
        ('"network", "detector", "defaults")', '"network", "detector")', ("bundle/test_bundle.py::test_the_hash_changes_with_everything_that_decides_a_result",)),
    ),
    *_of("counting", "batch/engine.py",
         ("return EXIT_SOME_FAILED if self.failures or self.untold else EXIT_OK", "return EXIT_SOME_FAILED if self.untold else EXIT_OK",
          (ENGINE + "test_whatever_goes_wrong_in_one_volume_the_others_are_done",)),
         ("% count == number - 1)", "% count == 0)", (RUNS + "test_shards_are_disjoint_cover_everything_and_share_the_tables",)),
         ("(self.done if record.fresh else self.skipped).append(record.volume)", "self.done.append(record.volume)",
          (ENGINE + "test_a_second_run_does_no_work_and_gives_the_same_tables",))),
    *_of("limits", "batch/engine.py", ("len(tally.failures) >= how.max_failures", "len(tally.failures) > how.max_failures",
                                      (RUNS + "test_a_run_stops_after_so_many_failures_and_says_so",))),
)  # fmt: skip

EVALUATION = (
    *_of(
        "counting", "evaluation/metrics/misdiagnosis.py",
        ("evidence.truth_pixels > settings.lesion_share * evidence.brain_pixels", "evidence.truth_pixels >= settings.lesion_share * evidence.brain_pixels",
         (COUNTED + "test_lesion_bearing_is_more_than_the_share_of_the_brain",)),
        ("(evidence.truth_pixels == 0) & (evidence.brain_pixels > 0)", "(evidence.truth_pixels == 0)",
         (COUNTED + "test_invented_is_more_than_the_pixels_on_a_truth_free_brain_slice",)),
        ("missed=found & (evidence.dice < delta)", "missed=evidence.dice < delta", (COUNTED + "test_found_at_delta_missed_below_it",)),
        ("evidence.segmented_pixels > settings.invented_pixels", "evidence.segmented_pixels >= settings.invented_pixels",
         (COUNTED + "test_invented_is_more_than_the_pixels_on_a_truth_free_brain_slice",)),
        ("1 - share / baseline_share", "share / baseline_share", (COUNTED + "test_relative_reduction",)),
    ),
    *_of(
        "bootstrap unit", "evaluation/cohort/counts.py",
        ("groups = [[case for case in cases if all(arm in case.evidence for arm in arms)] for cases in patients.values()]",
         "groups = [[case] for cases in patients.values() for case in cases if all(arm in case.evidence for arm in arms)]",
         ("evaluation/cohort/test_counts.py::test_a_patient_s_volumes_count_together",)),
    ),
    *_of(
        "bootstrap unit", "evaluation/cohort/statistics.py",
        ("paired=True", "paired=False", (STATISTICS + "test_whole_patients_are_drawn_so_that_numerator_and_denominator_stay_together",)),
        ("confidence_level=bootstrap.level", "confidence_level=0.5", (STATISTICS + "test_interval_of_a_mean_equals_scipys_bca_bootstrap",)),
        ('method="BCa"', 'method="percentile"', (STATISTICS + "test_a_skewed_figure_has_the_bca_interval_not_that_of_percentiles",)),
        ("np.random.default_rng(bootstrap.seed)", "np.random.default_rng()", (STATISTICS + "test_the_same_seed_gives_the_same_interval",)),
        ("if n < MIN_PATIENTS:\n        return Interval(", "if n < 1:\n        return Interval(",
         (STATISTICS + "test_one_or_two_patients_have_a_mean_without_an_interval",)),
        ("moved = differences[differences != 0]", "moved = differences", (STATISTICS + "test_equal_pairs_are_left_out_of_the_ranks_as_wilcoxon_does",)),
    ),
    *_of(
        "limits", "evaluation/cohort/limits.py",
        ('if found < limit.value else ""', 'if found > limit.value else ""', ("evaluation/cohort/test_limits.py::test_a_missed_limit_names_value_and_limit",)),
        ('is at most {limit.value:g}" if found > limit.value', 'is at most {limit.value:g}" if found < limit.value',
         ("evaluation/cohort/test_limits.py::test_where_lower_is_better_the_limit_is_a_largest_value",)),
        ("    if found is None:\n        return f", "    if found is None:\n        return '' and f",
         ("evaluation/cohort/test_limits.py::test_a_figure_without_a_number_misses_its_limit",)),
    ),
    *_of(
        "one grid", "volumes/placement.py",
        ("return volume.affine @ turn", "return volume.affine", (PLACEMENT + "test_the_canonical_affine_sends_every_voxel_to_where_the_file_says_it_is",)),
        ("np.linalg.inv(own.affine) @ target.affine", "np.linalg.inv(target.affine) @ own.affine",
         (PLACEMENT + "test_an_image_moved_with_its_header_comes_back_to_the_same_voxels",)),
        ("return np.where(covered, found, np.float32(0)), covered", "return found, covered",
         (PLACEMENT + "test_what_lies_outside_the_field_of_view_is_0_and_said",)),
        ("apart <= SAME_PLACE_VOXELS *", "apart <= 100 * SAME_PLACE_VOXELS *",
         (PLACEMENT + "test_the_same_voxels_in_another_orientation_are_one_place_and_a_shift_is_not",)),
    ),
    *_of("resampling", "volumes/placement.py",
         ("smooth = _antialiased(array, np.abs(mapping[:3, :3]).max(axis=1))", "smooth = array", (PLACEMENT + "test_a_coarser_grid_is_averaged_not_sampled",))),
    *_of(
        "masks", "volumes/masks.py",
        ("image / np.float32(self.one) >= 0.5", "image > 0", (MASKS + "test_every_encoding_of_a_mask_gives_the_same_mask",)),
        ("values.low < -WHOLE or", "", (MASKS + "test_what_is_neither_mask_labels_nor_probability_is_refused_with_its_values",)),
        ("or values.low > WHOLE:", ":", (MASKS + "test_what_is_neither_mask_labels_nor_probability_is_refused_with_its_values",)),
    ),
    *_of(
        "partners", "volumes/partners.py",
        ("its.get(key) != value for key", "its.get(key, value) != value for key",
         ("volumes/test_partners.py::test_a_partner_agrees_in_every_entity_that_it_has",)),
        ("return NOT if lesion or other else", "return NOT if other else",
         ("volumes/test_partners.py::test_a_partner_is_of_the_kind_asked_for_by_its_name",)),
        ("level == GENERIC and self._lies_beside_images(relative, volume):", "level == SILENT:",
         ("volumes/test_partners.py::test_a_partner_is_of_the_kind_asked_for_by_its_name",)),
    ),
    *_of(
        "affine", "volumes/formats/nifti/forms.py",
        ("if _left_right(q_codes) != _left_right(s_codes):", "if False:",
         ("volumes/test_header_forms.py::test_a_contradiction_about_size_or_side_is_refused_until_the_user_says_which_holds",)),
    ),
    *_of("masks", "volumes/placement.py", ("return found.array >= 0.5, ", "return found.array > 0, ",
                                          (PLACEMENT + "test_a_mask_moves_with_its_header_and_keeps_its_size",))),
    *_of(
        "one grid", "tasks/evaluation.py",
        ("return replace(matched, window=options.window).normalise, True, ", "return (lambda stored: stored), True, ",
         (EVALUATED + "test_a_matched_translation_is_taken_back_to_the_common_scale",)),
        ('written = None if role == "reference" else scale_of(', 'written = None if role != "reference" else scale_of(',
         (EVALUATED + "test_the_segmenter_reads_a_translation_on_the_scale_that_it_was_written_with",)),
        ("prepare_read(reader, PrepareSettings(bias=options.bias,", 'prepare_read(reader, PrepareSettings(bias="none",',
         (EVALUATED + "test_the_bias_field_is_taken_out_of_the_reference_on_whatever_grid_it_came",)),
    ),
)  # fmt: skip

MUTATIONS: tuple[Mutation, ...] = (*DIFFUSION, *OOD, *VOLUMES, *TASKS, *BATCH, *EVALUATION)
