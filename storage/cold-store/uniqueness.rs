//! Keeps the query engine from leaving out a sort that it needs.
//!
//! DataFusion 55.2 knows that the groups of an aggregation are unique, and that rows sorted by what is unique need no second
//! sort column. A projection above the aggregation may put another column in the place of the groups', and then that one is
//! taken for unique (`EquivalenceProperties::projected_constraints` counts places of the output, where those of the input are
//! meant): `ORDER BY n DESC, k` leaves rows of equal `n` in any order. So while sorts are decided, no group is known to be unique.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Constraints, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};

/// The rule that decides which sorts there are.
const SORTING: &str = "EnsureRequirements";

/// The engine's rules, with ours around the one that decides about sorts.
///
/// # Panics
/// If that rule has another name: another version of the engine must be looked at anew.
pub(crate) fn rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let place = rules.iter().position(|rule| rule.name() == SORTING).expect("the rule has this name in this version");
    rules.insert(place + 1, Arc::new(Remember));
    rules.insert(place, Arc::new(Forget));
    rules
}

/// Puts a [`Forgetful`] above each aggregation.
#[derive(Debug)]
struct Forget;

/// Takes them away.
#[derive(Debug)]
struct Remember;

impl PhysicalOptimizerRule for Forget {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let forget = |plan: Arc<dyn ExecutionPlan>| {
            if plan.is::<AggregateExec>() {
                Transformed::yes(Forgetful::above(plan) as _)
            } else {
                Transformed::no(plan)
            }
        };
        plan.transform_up(|plan| Ok(forget(plan))).data()
    }

    fn name(&self) -> &str {
        "forget which groups are unique"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl PhysicalOptimizerRule for Remember {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let remember = |plan: Arc<dyn ExecutionPlan>| match plan.downcast_ref::<Forgetful>() {
            Some(forgetful) => Transformed::yes(forgetful.input.clone()),
            None => Transformed::no(plan),
        };
        plan.transform_up(|plan| Ok(remember(plan))).data()
    }

    fn name(&self) -> &str {
        "remember which groups are unique"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Its input, of which nothing is known to be unique.
#[derive(Debug)]
struct Forgetful {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Forgetful {
    fn above(input: Arc<dyn ExecutionPlan>) -> Arc<Self> {
        let properties = input.properties().as_ref().clone();
        let known = properties.equivalence_properties().clone().with_constraints(Constraints::default());
        Arc::new(Self { input, properties: Arc::new(properties.with_eq_properties(known)) })
    }
}

impl DisplayAs for Forgetful {
    fn fmt_as(&self, _: DisplayFormatType, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Forgetful")
    }
}

impl ExecutionPlan for Forgetful {
    fn name(&self) -> &str {
        "Forgetful"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Self::above(children.remove(0)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
