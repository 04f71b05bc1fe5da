// A payload to begin with, from a JSON Schema: what is required, with values that say where something is to be written.
type Schema = Record<string, unknown>

const DEEPEST = 8

/** JSON text of a payload that has what the schema requires. */
export function sketch(schema: Schema): string {
  return JSON.stringify(valueOf(schema, schema, 0), null, 2)
}

function valueOf(schema: Schema, root: Schema, depth: number): unknown {
  if (depth > DEEPEST) return null
  const named = schema.$ref
  if (typeof named === 'string') return valueOf(found(named, root), root, depth + 1)
  if ('default' in schema) return schema.default
  if ('const' in schema) return schema.const
  for (const list of ['examples', 'enum']) {
    const values = schema[list]
    if (Array.isArray(values) && values.length > 0) return values[0]
  }
  for (const list of ['anyOf', 'oneOf', 'allOf']) {
    const some = schema[list]
    if (Array.isArray(some) && some.length > 0) return valueOf(some[0] as Schema, root, depth + 1)
  }
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type
  if (type === 'object' || schema.properties) return objectOf(schema, root, depth)
  return type === 'array' ? [] : type === 'string' ? '' : type === 'integer' || type === 'number' ? 0 : type === 'boolean' ? false : type === undefined ? {} : null
}

function objectOf(schema: Schema, root: Schema, depth: number): unknown {
  const properties = (schema.properties ?? {}) as Record<string, Schema>
  const required = Array.isArray(schema.required) ? (schema.required as string[]) : []
  return Object.fromEntries(required.filter((name) => Object.hasOwn(properties, name)).map((name) => [name, valueOf(properties[name]!, root, depth + 1)]))
}

function found(ref: string, root: Schema): Schema {
  let at: unknown = root
  for (const part of ref.replace(/^#\/?/, '').split('/')) {
    const name = part.replaceAll('~1', '/').replaceAll('~0', '~')
    at = typeof at === 'object' && at !== null && Object.hasOwn(at, name) ? (at as Schema)[name] : undefined
  }
  return typeof at === 'object' && at !== null ? (at as Schema) : {}
}
