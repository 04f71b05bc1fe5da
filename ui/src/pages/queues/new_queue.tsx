import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { post } from '../../api/client'
import { navigate } from '../../lib/hash_router'
import { Confirm } from '../../parts/dialog'
import { Field } from '../../parts/field'

export function NewQueue({ close }: { close: () => void }) {
  const client = useQueryClient()
  const [name, setName] = useState('')
  const [most, setMost] = useState('')
  return (
    <Confirm
      title="New queue"
      act="Make it"
      ready={name.trim() !== ''}
      close={close}
      run={async () => {
        await post('queues', { name: name.trim(), ...(most ? { max_workers: Number(most) } : {}) })
        void client.invalidateQueries()
        navigate(`/queues/${encodeURIComponent(name.trim())}`)
      }}
    >
      <div className="fields">
        <Field label="Name" note="letters, digits and _ . : -">
          <input type="text" value={name} autoFocus onChange={(event) => setName(event.target.value)} />
        </Field>
        <Field label="Slots at most, over all workers" note="empty: no total">
          <input type="number" min="0" value={most} onChange={(event) => setMost(event.target.value)} />
        </Field>
      </div>
    </Confirm>
  )
}
